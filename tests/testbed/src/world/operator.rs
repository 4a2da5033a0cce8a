//! The operator as a process of its own, which can be killed, stopped and started again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{PATIENCE, World};
use crate::ports::free_port;
use crate::{Child, ControlPlane, Proxy, Signal, eventually, plain_http};

/// The chart's rules: what the operator may do in production is what it may do here.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/verteil-token-operator/files/rules.yaml");
/// Those of the release namespace, for leader election.
const LEASE_RULES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/verteil-token-operator/files/lease-rules.yaml");

/// Those that --rollout-restart needs on top.
const ROLLOUT_RULES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/verteil-token-operator/files/rollout-rules.yaml");

/// Those that the token API needs, for the whole cluster.
const TOKEN_API_RULES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/verteil-token-operator/files/token-api-rules.yaml");

/// The issuer of a test speaks http on loopback.
const ALLOW_ALL: [&str; 2] = ["--allow-http", "--allowed-issuer-hosts=*"];

pub(super) static OPERATORS: AtomicUsize = AtomicUsize::new(0);

/// Flags beside those that every operator under test has.
pub type OperatorFlags<'a> = &'a [&'a str];

/// A running operator.
pub struct Operator {
    child: Child,
    http: String,
    debug: String,
    token_api: Option<String>,
}

// === impl World ===

impl World {
    /// Starts the binary `program` for this namespace and waits until it is ready. http and any host are allowed.
    pub async fn operator(&self, program: impl AsRef<Path>, flags: OperatorFlags<'_>) -> Operator {
        let operator = self.start_operator(program, flags);
        operator.wait_until_ready().await;
        operator
    }

    /// The same without leave to use http and any host.
    pub async fn bare_operator(&self, program: impl AsRef<Path>, flags: OperatorFlags<'_>) -> Operator {
        let operator = self.start_operator_with(&self.operator_kubeconfig(), program, flags);
        operator.wait_until_ready().await;
        operator
    }

    /// The same with more in its environment.
    pub async fn operator_with(
        &self,
        program: impl AsRef<Path>,
        flags: OperatorFlags<'_>,
        env: &[(&str, &str)],
    ) -> Operator {
        let operator = self.spawn(&self.operator_kubeconfig(), program, &allowing_all(flags), env);
        operator.wait_until_ready().await;
        operator
    }

    /// Starts it, and does not wait.
    pub fn start_operator(&self, program: impl AsRef<Path>, flags: OperatorFlags<'_>) -> Operator {
        self.start_operator_with(&self.operator_kubeconfig(), program, &allowing_all(flags))
    }

    /// Starts it behind `proxy`, and does not wait.
    pub fn operator_behind(&self, proxy: &Proxy, program: impl AsRef<Path>, flags: OperatorFlags<'_>) -> Operator {
        self.start_operator_with(&proxy.kubeconfig(), program, &allowing_all(flags))
    }

    /// The same with more in its environment.
    pub fn operator_behind_with(
        &self,
        proxy: &Proxy,
        program: impl AsRef<Path>,
        flags: OperatorFlags<'_>,
        env: &[(&str, &str)],
    ) -> Operator {
        self.spawn(&proxy.kubeconfig(), program, &allowing_all(flags), env)
    }

    /// A proxy for one operator of this world.
    #[must_use]
    pub fn proxy(&self) -> Proxy {
        Proxy::start(&self.operator_kubeconfig()).expect("a proxy")
    }

    /// Gives the operator what the chart's rules allow on top with `rolloutRestart: true`.
    pub async fn allow_rollout_restarts(&self) {
        let rules = std::fs::read_to_string(ROLLOUT_RULES).expect("the chart's rules");
        self.kubectl_apply(&role_with("verteil-token-operator-rollout", &self.namespace, &rules)).await;
    }

    /// Gives the operator what the chart's rules allow on top for the token API. It goes with the test's namespace by name only.
    pub async fn allow_reviews(&self) {
        let (rules, namespace) =
            (std::fs::read_to_string(TOKEN_API_RULES).expect("the chart's rules"), &self.namespace);
        let name = format!("token-api-{namespace}");
        self.kubectl_apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\nrules:\n{rules}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {name}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}\n\
             subjects: [{{kind: ServiceAccount, name: verteil-token-operator, namespace: {namespace}}}]\n"
        ))
        .await;
    }

    fn start_operator_with(&self, kubeconfig: &Path, program: impl AsRef<Path>, flags: OperatorFlags<'_>) -> Operator {
        self.spawn(kubeconfig, program, flags, &[])
    }

    fn spawn(
        &self,
        kubeconfig: &Path,
        program: impl AsRef<Path>,
        flags: OperatorFlags<'_>,
        env: &[(&str, &str)],
    ) -> Operator {
        let number = OPERATORS.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("operator-{number}.log"));
        let own = flags.iter().any(|flag| flag.starts_with("--log-filter="));
        let default = (!own).then_some("--log-filter=info,verteil_token_operator=debug");
        let flags: Vec<&str> = default.into_iter().chain(flags.iter().copied()).collect();
        Operator::start_with(kubeconfig, program.as_ref(), &self.namespace, &flags, env, &log)
            .expect("the operator starts")
    }

    /// A kubeconfig that may do what the chart's Role allows in this namespace.
    #[must_use]
    pub fn operator_kubeconfig(&self) -> PathBuf {
        kubeconfig(self.cluster, &self.namespace).expect("a kubeconfig")
    }
}

// === impl Operator ===

impl Operator {
    /// Starts `program` for one namespace, and does not wait.
    pub fn start(
        kubeconfig: &Path,
        program: &Path,
        namespace: &str,
        flags: OperatorFlags<'_>,
        log: &Path,
    ) -> anyhow::Result<Self> {
        Self::start_with(kubeconfig, program, namespace, flags, &[], log)
    }

    fn start_with(
        kubeconfig: &Path,
        program: &Path,
        namespace: &str,
        flags: OperatorFlags<'_>,
        env: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let kubeconfig = kubeconfig.to_string_lossy();
        let own = env.iter().any(|(name, _)| name.eq_ignore_ascii_case("NO_PROXY"));
        let no_proxy = (!own).then_some(("NO_PROXY", "127.0.0.1"));
        let env: Vec<_> =
            [("KUBECONFIG", &*kubeconfig)].into_iter().chain(no_proxy).chain(env.iter().copied()).collect();
        let http = format!("127.0.0.1:{}", free_port()?);
        let debug = format!("127.0.0.1:{}", free_port()?);
        let base =
            [format!("--namespaces={namespace}"), format!("--http-listen={http}"), format!("--debug-listen={debug}")];
        let child = Child::spawn(
            "the operator",
            program,
            base.iter().map(String::as_str).chain(flags.iter().copied()),
            &env,
            log,
        )?;
        Ok(Self { child, http, debug, token_api: None })
    }

    /// Starts `program` with exactly these arguments, which name `http`, `debug` and perhaps `token_api` as its addresses.
    pub(super) fn start_as_told(
        kubeconfig: &Path,
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
        ([http, debug], token_api): ([String; 2], Option<String>),
        log: &Path,
    ) -> anyhow::Result<Self> {
        let kubeconfig = kubeconfig.to_string_lossy();
        let env: Vec<_> = [("KUBECONFIG", &*kubeconfig)].into_iter().chain(env.iter().copied()).collect();
        let child = Child::spawn("the operator", program, args, &env, log)?;
        Ok(Self { child, http, debug, token_api })
    }

    /// SIGKILL: a crash.
    pub fn kill(self) {
        self.child.kill();
    }

    /// SIGTERM, and waits for the end; the exit code.
    pub async fn terminate(self) -> Option<i32> {
        self.child.signal(Signal::TERM).expect("it runs");
        self.child.wait(Duration::from_secs(40)).await.and_then(|status| status.code())
    }

    /// The process.
    #[must_use]
    pub const fn process(&self) -> &Child {
        &self.child
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// GET of one of its paths: status code and body.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let answer = plain_http::get(&format!("http://{}{path}", self.http)).await?;
        Ok((answer.status, answer.body))
    }

    /// Where its probes and metrics are: host and port.
    #[must_use]
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Where its debug endpoint is: host and port.
    #[must_use]
    pub fn debug(&self) -> &str {
        &self.debug
    }

    /// Where its token API is, if the chart has told it to have one: host and port.
    #[must_use]
    pub fn token_api(&self) -> Option<&str> {
        self.token_api.as_deref()
    }

    /// The value of a metric, by its name with labels as printed.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await.ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits for /readyz.
    pub async fn wait_until_ready(&self) {
        eventually("the operator to be ready", PATIENCE, async || match self.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            Ok((code, body)) => Err(format!("{code} {body}")),
            Err(error) => {
                assert!(self.child.is_running(), "the operator has ended:\n{}", self.child.log_tail(30));
                Err(format!("{error:#}"))
            }
        })
        .await;
    }
}

fn allowing_all(flags: OperatorFlags<'_>) -> Vec<&str> {
    ALLOW_ALL.iter().chain(flags).copied().collect()
}

/// A kubeconfig that may do what the chart's Role allows in `namespace`, once [`role`] is applied there.
pub fn kubeconfig(cluster: &ControlPlane, namespace: &str) -> anyhow::Result<PathBuf> {
    let (user, groups) = service_account(namespace);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    cluster.kubeconfig_for(&user, &groups)
}

/// The chart's ServiceAccount, as the apiserver sees it.
fn service_account(namespace: &str) -> (String, [String; 2]) {
    (
        format!("system:serviceaccount:{namespace}:verteil-token-operator"),
        ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
    )
}

/// The chart's rules in a Role, bound to its ServiceAccount: to be applied in `namespace`.
#[must_use]
pub fn role(namespace: &str) -> String {
    let rules = [RULES, LEASE_RULES].map(|file| std::fs::read_to_string(file).expect("the chart's rules")).concat();
    role_with("verteil-token-operator", namespace, &rules)
}

/// `rules` in a Role `name`, bound to the chart's ServiceAccount.
fn role_with(name: &str, namespace: &str, rules: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: {name}}}\nrules:\n{rules}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
         subjects: [{{kind: ServiceAccount, name: verteil-token-operator, namespace: {namespace}}}]\n"
    )
}
