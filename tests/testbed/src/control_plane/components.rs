//! The files and command lines of the components.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::{Setup, access};
use crate::binaries::Component;
use crate::process::Child;

/// The user of kube-controller-manager, to whom the cluster's own roles belong.
const CONTROLLER_MANAGER_USER: &str = "system:kube-controller-manager";

/// What the operator and its tests can notice of a cluster. Left out is what needs nodes, volumes, certificates or
/// clouds, which would only take time on a small machine.
const CONTROLLERS: &str = "serviceaccount-token-controller,serviceaccount-controller,\
    root-ca-certificate-publisher-controller,garbage-collector-controller,namespace-controller,\
    resourcequota-controller,clusterrole-aggregation-controller,deployment-controller,replicaset-controller,\
    statefulset-controller,daemonset-controller,job-controller,cronjob-controller,ttl-after-finished-controller";

// === impl Setup ===

impl Setup {
    /// Writes what the components read at their start.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        let pki = &self.pki;
        self.write("ca.crt", &pki.ca)?;
        self.write("apiserver.crt", &pki.server_certificate)?;
        self.write("apiserver.key", &pki.server_key)?;
        self.write("sa.key", &pki.service_account_key)?;
        self.write("sa.pub", &pki.service_account_public_key)?;
        // token, user, uid, groups
        self.write(
            "tokens.csv",
            &format!(
                "{},admin,1,system:masters\n{},{CONTROLLER_MANAGER_USER},2,\n",
                self.admin_token,
                self.controller_manager_token()
            ),
        )?;
        self.write("kubeconfig", &access::kubeconfig(self, &self.admin_token, None).to_string())?;
        self.write(
            "controller-manager.kubeconfig",
            &access::kubeconfig(self, &self.controller_manager_token(), None).to_string(),
        )
    }

    /// Another than the administrator's, so that its writes are told apart.
    fn controller_manager_token(&self) -> String {
        format!("controller-manager-{}", self.admin_token)
    }

    pub(super) fn spawn_etcd(&self) -> anyhow::Result<Child> {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        self.spawn(
            Component::Etcd,
            &[
                &format!("--name={}", self.name),
                &format!("--data-dir={}", self.file("etcd")?),
                &format!("--listen-client-urls={client}"),
                &format!("--advertise-client-urls={client}"),
                &format!("--listen-peer-urls={peer}"),
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--initial-cluster={}={peer}", self.name),
                // Nothing needs to survive the machine.
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            &[],
        )
    }

    pub(super) fn spawn_apiserver(&self) -> anyhow::Result<Child> {
        self.spawn(
            Component::ApiServer,
            &[
                &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                &format!("--secure-port={}", self.apiserver_port),
                &format!("--cert-dir={}", self.file("certificates")?),
                &format!("--tls-cert-file={}", self.file("apiserver.crt")?),
                &format!("--tls-private-key-file={}", self.file("apiserver.key")?),
                &format!("--token-auth-file={}", self.file("tokens.csv")?),
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                &format!("--service-account-signing-key-file={}", self.file("sa.key")?),
                &format!("--service-account-key-file={}", self.file("sa.pub")?),
                "--service-cluster-ip-range=10.0.0.0/24",
                // Endpoints of the `kubernetes` Service may not be loopback addresses; no pod is there to use them.
                "--endpoint-reconciler-type=none",
                "--allow-privileged=true",
                "--profiling=false",
            ],
            &self.options.apiserver_args,
        )
    }

    pub(super) fn spawn_controller_manager(&self) -> anyhow::Result<Child> {
        self.spawn(
            Component::ControllerManager,
            &[
                &format!("--kubeconfig={}", self.file("controller-manager.kubeconfig")?),
                // No port of its own: nobody asks it for its health or metrics.
                "--secure-port=0",
                "--leader-elect=false",
                "--use-service-account-credentials",
                &format!("--service-account-private-key-file={}", self.file("sa.key")?),
                &format!("--root-ca-file={}", self.file("ca.crt")?),
                &format!("--controllers={CONTROLLERS}"),
                // Tests make and delete in seconds what a cluster does in hours.
                "--resource-quota-sync-period=5s",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
                "--concurrent-gc-syncs=4",
                "--concurrent-namespace-syncs=4",
                "--concurrent-resource-quota-syncs=2",
                "--concurrent-deployment-syncs=2",
                "--concurrent-replicaset-syncs=2",
                "--concurrent-statefulset-syncs=1",
                "--concurrent-cron-job-syncs=1",
                "--concurrent-job-syncs=1",
                "--profiling=false",
            ],
            &self.options.controller_manager_args,
        )
    }

    fn spawn(&self, component: Component, args: &[&str], more: &[String]) -> anyhow::Result<Child> {
        let tool = self.binaries.tool(component)?;
        let args = tool.args(args.iter().copied().chain(more.iter().map(String::as_str)));
        // Two cores are shared with the tests: less collection for a little more memory.
        let (env, log) = (&[("GOGC", "200")], self.log_of(component));
        match &self.options.inside {
            None => Child::spawn(component.name(), &tool.program, args, env, &log),
            Some(namespaces) => namespaces.spawn(component.name(), &tool.program, args, env, &log),
        }
    }

    pub(super) fn log_of(&self, component: Component) -> std::path::PathBuf {
        self.dir.path().join(format!("{}.log", component.name()))
    }

    fn file(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.path().join(name);
        path.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", path.display()))
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        write(&self.dir.path().join(name), content)
    }
}

pub(super) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
