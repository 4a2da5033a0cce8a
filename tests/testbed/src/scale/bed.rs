//! The cluster with its objects.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::json;
use verteil_token_operator::api::{VerteilToken, crd};
use verteil_token_operator::decide::condition;

use super::account::Account;
use super::operator::Operator;
use super::requests::{AuditLog, Requests};
use super::{Args, meter, progress, seconds};
use crate::world::{PASSWORD, USERNAME};
use crate::{ControlPlane, Issuer, Options};

/// Where the operator works.
pub(super) const NAMESPACE: &str = "scale";
/// Where the bare loop works.
pub(super) const FLOOR: &str = "floor";
/// The Secret with the credentials of all.
pub(super) const CREDENTIALS: &str = "credentials";
/// Objects of one list request, as the operator has them.
const PAGE: u32 = 100;
/// Calls at a time while objects are made.
const MAKING: usize = 32;
/// As many characters as a token has.
const TOKEN_LENGTH: usize = 900;
/// Bytes in a Secret of somebody else.
const FOREIGN_BYTES: usize = 10_000;

/// A control plane, an issuer, and N resources in two namespaces.
pub(super) struct Bed {
    /// The administrator.
    pub(super) client: Client,
    pub(super) issuer: Issuer,
    pub(super) resources: usize,
    pub(super) cluster: ControlPlane,
    accounts: BTreeMap<&'static str, Account>,
    audit: AuditLog,
    program: PathBuf,
    concurrency: [usize; 2],
    dir: tempfile::TempDir,
}

/// CPU that the control plane has used, in seconds.
#[derive(Clone, Copy)]
pub(super) struct ControlPlaneCpu {
    pub(super) apiserver: f64,
    pub(super) etcd: f64,
}

// === impl Bed ===

impl Bed {
    /// With the resources of the floor, and none for the operator yet.
    pub(super) async fn new(args: &Args, program: PathBuf, resources: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let options = Options {
            apiserver_args: AuditLog::args(dir.path(), &[NAMESPACE, FLOOR].map(Account::user))?,
            // It reads the owners of Secrets, which is work for the apiserver that is none of the operator's.
            controller_manager_args: vec!["--enable-garbage-collector=false".to_owned()],
            ..Options::default()
        };
        let cluster = ControlPlane::start(options).await?;
        let client = cluster.client();
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        let crd = crd();
        let name = crd.metadata.name.clone().context("a name")?;
        definitions.create(&PostParams::default(), &crd).await?;
        await_condition(definitions, &name, conditions::is_crd_established()).await?;
        let issuer = Issuer::start()?;
        issuer.set_latency(Duration::from_millis(args.latency));
        issuer.set_token_length(TOKEN_LENGTH);
        let audit = AuditLog::new(dir.path(), Account::user(NAMESPACE));
        let concurrency = [args.concurrency, args.issuer_concurrency];
        let mut accounts = BTreeMap::new();
        for namespace in [NAMESPACE, FLOOR] {
            make_namespace(&client, namespace).await?;
            accounts.insert(namespace, Account::new(&cluster, namespace).await?);
        }
        let bed = Self { client, issuer, resources, cluster, accounts, audit, program, concurrency, dir };
        bed.make_resources(FLOOR).await?;
        Ok(bed)
    }

    /// Makes as many resources in `namespace` as are measured.
    pub(super) async fn make_resources(&self, namespace: &str) -> anyhow::Result<()> {
        let api = &Api::<VerteilToken>::namespaced(self.client.clone(), namespace);
        let making = (0..self.resources).map(|i| async move {
            api.create(&PostParams::default(), &self.token(namespace, &name_of(i))).await.map(drop)
        });
        all(&format!("resources made in {namespace}"), making).await
    }

    /// A minimal resource, not made yet.
    pub(super) fn token(&self, namespace: &str, name: &str) -> VerteilToken {
        let object = json!({
            "apiVersion": "verteil.dev/v1alpha1",
            "kind": "VerteilToken",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"tokenURL": self.issuer.url_for(name), "credentialsSecretRef": {"name": CREDENTIALS}},
        });
        serde_json::from_value(object).expect("a minimal resource")
    }

    /// Secrets of somebody else where the operator works.
    pub(super) async fn make_foreign_secrets(&self, count: usize) -> anyhow::Result<()> {
        let api = &Api::<Secret>::namespaced(self.client.clone(), NAMESPACE);
        let making = (0..count).map(|i| async move {
            let secret = Secret {
                metadata: ObjectMeta { name: Some(format!("foreign-{i}")), ..Default::default() },
                string_data: Some(BTreeMap::from([("data".to_owned(), "x".repeat(FOREIGN_BYTES))])),
                ..Default::default()
            };
            api.create(&PostParams::default(), &secret).await.map(drop)
        });
        all("Secrets of others made", making).await
    }

    /// Asks for a new token for each resource.
    pub(super) async fn ask_for_renewals(&self, value: &str) -> anyhow::Result<()> {
        let api = &self.tokens();
        let patch = &Patch::Merge(json!({"metadata": {"annotations": {"verteil.dev/renew": value}}}));
        let asking = (0..self.resources)
            .map(|i| async move { api.patch_metadata(&name_of(i), &PatchParams::default(), patch).await.map(drop) });
        all("renewals asked for", asking).await
    }

    /// The resources where the operator works, for the administrator.
    pub(super) fn tokens(&self) -> Api<VerteilToken> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The operator's account in a namespace.
    pub(super) fn account(&self, namespace: &str) -> &Account {
        &self.accounts[namespace]
    }

    /// Starts the operator.
    pub(super) fn operator(&self) -> anyhow::Result<Operator> {
        let log = self.dir.path().join("operator.log");
        Operator::start(&self.program, &self.account(NAMESPACE).kubeconfig, NAMESPACE, self.concurrency, &log)
    }

    /// What the operator has asked of the apiserver so far.
    pub(super) fn requests(&self) -> anyhow::Result<Requests> {
        self.audit.requests()
    }

    /// What the control plane has used so far.
    pub(super) fn control_plane_cpu(&self) -> anyhow::Result<ControlPlaneCpu> {
        let of = |pid: Option<u32>| anyhow::Ok(seconds(meter::cpu(pid.context("it has ended")?)?));
        Ok(ControlPlaneCpu { apiserver: of(self.cluster.apiserver_pid())?, etcd: of(self.cluster.etcd_pid())? })
    }

    /// How many resources are Ready for their present generation.
    pub(super) async fn count_ready(&self) -> anyhow::Result<usize> {
        let mut ready = 0;
        self.list(&self.client, |token| {
            let status = token.status.as_ref();
            let is_ready = status.and_then(|status| condition(status, "Ready")).is_some_and(|c| c.status == "True");
            ready += usize::from(is_ready);
        })
        .await?;
        Ok(ready)
    }

    /// Reads all resources, a page at a time.
    pub(super) async fn list(&self, client: &Client, mut each: impl FnMut(&VerteilToken)) -> anyhow::Result<()> {
        let api = Api::<VerteilToken>::namespaced(client.clone(), NAMESPACE);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            page.items.iter().for_each(&mut each);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Reads the metadata of all Secrets, a page at a time.
    pub(super) async fn list_secrets(&self, client: &Client) -> anyhow::Result<()> {
        let api = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

// === impl ControlPlaneCpu ===

impl ControlPlaneCpu {
    /// What came after `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self { apiserver: self.apiserver - before.apiserver, etcd: self.etcd - before.etcd }
    }
}

async fn make_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let meta = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
    let namespace = Namespace { metadata: meta(name), ..Default::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let data = [("username", USERNAME), ("password", PASSWORD)];
    let credentials = Secret {
        metadata: meta(CREDENTIALS),
        string_data: Some(data.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..Default::default()
    };
    Api::namespaced(client.clone(), name).create(&PostParams::default(), &credentials).await?;
    Ok(())
}

/// Makes all the calls, some at a time, and says how far it is.
async fn all<F: Future<Output = kube::Result<()>>>(
    what: &str,
    calls: impl ExactSizeIterator<Item = F>,
) -> anyhow::Result<()> {
    let (count, done, began) = (calls.len(), &AtomicUsize::new(0), Instant::now());
    let counted = calls.map(|call| async move {
        call.await?;
        done.fetch_add(1, Ordering::Relaxed);
        anyhow::Ok(())
    });
    let making = stream::iter(counted).buffer_unordered(MAKING).try_collect::<()>();
    progress(what, count, began, || done.load(Ordering::Relaxed), making).await
}

/// The name of the resource with this number.
pub(super) fn name_of(number: usize) -> String {
    format!("token-{number:05}")
}
