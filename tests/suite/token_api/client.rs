//! Callers: ServiceAccounts with tokens of the apiserver, and an HTTP client of its own kind.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::ports::free_port;
use testbed::world::{Operator, OperatorFlags};
use testbed::{Authority, Proxy, ServerCertificate, World};
use tokio::task::JoinHandle;
use verteil_token_operator::start::init_crypto;

use crate::OPERATOR;

/// The audience by default.
pub const AUDIENCE: &str = "verteil-token-operator";
/// Longer than any wait.
const TIMEOUT: Duration = Duration::from_secs(75);

/// A token API under test.
#[derive(Clone)]
pub struct TokenApi {
    pub url: String,
    pub authority: Arc<Authority>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    client: reqwest::Client,
}

/// What it has answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

// === impl TokenApi ===

impl TokenApi {
    /// Starts an operator with the API, and the right to review.
    pub async fn start(world: &World, flags: OperatorFlags<'_>) -> (Operator, Self) {
        world.allow_reviews().await;
        let (api, own) = Self::prepare(world);
        let flags: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        (world.operator(OPERATOR, &flags).await, api)
    }

    /// The same behind `proxy`.
    pub async fn start_behind(world: &World, proxy: &Proxy, flags: OperatorFlags<'_>) -> (Operator, Self) {
        world.allow_reviews().await;
        let (api, own) = Self::prepare(world);
        let flags: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        let operator = world.operator_behind(proxy, OPERATOR, &flags);
        operator.wait_until_ready().await;
        (operator, api)
    }

    /// A certificate in files, and the flags that name them.
    pub fn prepare(world: &World) -> (Self, Vec<String>) {
        init_crypto();
        let port = free_port().unwrap();
        let authority = Authority::new("token-api-ca");
        let server = authority.server(&["127.0.0.1", "localhost"]);
        let certificate = world.file(&format!("tls-{port}.crt"), server.chain_pem());
        let key = world.file(&format!("tls-{port}.key"), server.key_pem());
        let flags = vec![
            format!("--token-api-listen=127.0.0.1:{port}"),
            format!("--token-api-cert={}", certificate.display()),
            format!("--token-api-key={}", key.display()),
        ];
        let client = client_of(&authority, None);
        let url = format!("https://127.0.0.1:{port}");
        (Self { url, authority: Arc::new(authority), certificate, key, client }, flags)
    }

    /// The same called from another address of this machine, over connections of its own.
    #[must_use]
    pub fn called_from(&self, address: impl Into<IpAddr>) -> Self {
        Self { client: client_of(&self.authority, Some(address.into())), ..self.clone() }
    }

    /// The same at another place, host and port.
    #[must_use]
    pub fn at(&self, place: &str) -> Self {
        Self { url: format!("https://{place}"), ..self.clone() }
    }

    /// Writes another certificate to the files, first the one and then the other.
    pub fn show(&self, server: &ServerCertificate) {
        std::fs::write(&self.certificate, server.chain_pem()).unwrap();
        std::fs::write(&self.key, server.key_pem()).unwrap();
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    pub async fn get(&self, namespace: &str, name: &str, bearer: &str) -> Answered {
        self.call("GET", namespace, name, bearer, "", &[]).await
    }

    pub async fn path(&self, path: &str, bearer: &str) -> Answered {
        self.send(self.client.get(format!("{}{path}", self.url)).bearer_auth(bearer)).await.unwrap()
    }

    pub async fn call(
        &self,
        method: &str,
        namespace: &str,
        name: &str,
        bearer: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> Answered {
        self.try_call(method, namespace, name, bearer, query, headers).await.unwrap()
    }

    /// The same where it may fail.
    pub async fn try_call(
        &self,
        method: &str,
        namespace: &str,
        name: &str,
        bearer: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answered> {
        let url = format!("{}/api/token/{namespace}/{name}{query}", self.url);
        let mut request = self.client.request(method.parse().unwrap(), url);
        if !bearer.is_empty() {
            request = request.bearer_auth(bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    /// A call that goes on beside the test.
    pub fn spawn(
        self,
        world: &World,
        name: &str,
        bearer: &str,
        query: &str,
        headers: &[(&str, &str)],
    ) -> JoinHandle<Answered> {
        let (namespace, name, bearer, query) =
            (world.namespace.clone(), name.to_owned(), bearer.to_owned(), query.to_owned());
        let headers: Vec<_> = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        tokio::spawn(async move {
            let headers: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            self.call("GET", &namespace, &name, &bearer, &query, &headers).await
        })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answered> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answered { status, headers, body: answer.text().await? })
    }
}

// === impl Answered ===

impl Answered {
    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> String {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn client_of(authority: &Authority, address: Option<IpAddr>) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(TIMEOUT);
    client.local_address(address).build().unwrap()
}

/// A ServiceAccount that may get the token `name` (or all of them, with `*`), and a token of its own.
pub async fn caller(world: &World, account: &str, name: &str) -> String {
    world
        .kubectl_apply(
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}).to_string(),
        )
        .await;
    allow(world, account, name).await;
    token_of(world, account, AUDIENCE).await
}

/// Lets a ServiceAccount get the token `name`, or all of them.
pub async fn allow(world: &World, account: &str, name: &str) {
    let group = "rbac.authorization.k8s.io";
    let names = if name == "*" { json!([]) } else { json!([name]) };
    let right = json!({"apiGroups": ["verteil.dev"], "resources": ["verteiltokens/token"], "verbs": ["get"], "resourceNames": names});
    let role = json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": account}, "rules": [right],
    });
    let binding = json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": account},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": world.namespace}],
    });
    world.kubectl_apply(&format!("{role}\n---\n{binding}")).await;
}

/// A token by the TokenRequest API, as the kubelet projects it.
pub async fn token_of(world: &World, account: &str, audience: &str) -> String {
    let audience = format!("--audience={audience}");
    world.kubectl(&["create", "token", account, &audience], None).await.succeeded().trim().to_owned()
}
