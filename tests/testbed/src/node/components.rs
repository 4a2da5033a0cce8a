//! The files and command lines of a node's parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{ADDRESS, NAME, Namespaces, Setup};
use crate::binaries::Component;
use crate::control_plane::{ControlPlane, Options};
use crate::process::Child;

/// Addresses of pods.
const PODS: &str = "10.244.0.0/24";
/// How often the kubelet looks at each pod, which is when a changed Secret reaches the pod's files. Its default is a minute;
/// a test has no such time.
pub(super) const SYNC: &str = "2s";
/// The image of a pod's sandbox.
pub(super) const PAUSE: &str = "localhost/pause:testbed";

/// Who the parts are.
#[derive(Debug)]
pub(super) struct Kubeconfigs {
    admin: PathBuf,
    kubelet: PathBuf,
    scheduler: PathBuf,
    proxy: PathBuf,
}

/// The options of a control plane in the node's namespaces, with all that a node needs of it.
pub(super) fn control_plane(namespaces: &Arc<Namespaces>) -> Options {
    // Later ones replace earlier ones, or are added where there can be several.
    let apiserver = [
        "--bind-address=0.0.0.0",
        &format!("--advertise-address={ADDRESS}"),
        "--endpoint-reconciler-type=lease",
        "--authorization-mode=Node",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
    ];
    Options {
        apiserver_args: apiserver.map(str::to_owned).into(),
        controller_manager_args: vec!["--controllers=*".to_owned()],
        inside: Some(namespaces.clone()),
    }
}

// === impl Kubeconfigs ===

impl Kubeconfigs {
    pub(super) fn of(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        Ok(Self {
            admin: control_plane.kubeconfig().to_owned(),
            kubelet: control_plane.kubeconfig_for(&format!("system:node:{NAME}"), &["system:nodes"])?,
            scheduler: control_plane.kubeconfig_for("system:kube-scheduler", &[])?,
            proxy: control_plane.kubeconfig_for("system:kube-proxy", &[])?,
        })
    }
}

// === impl Setup ===

impl Setup {
    /// Writes what the parts read at their start.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        // The machine's own name servers are out of reach.
        self.write("resolv.conf", &format!("nameserver {ADDRESS}\n"))?;
        fs::create_dir_all(self.path("cni"))?;
        self.write("cni/10-ptp.conflist", &network().to_string())?;
        self.write("containerd.toml", &self.containerd())?;
        self.write("proxy.json", &self.proxy().to_string())?;
        self.write("Corefile", &self.names())
    }

    pub(super) fn spawn_containerd(&self, namespaces: &Namespaces) -> anyhow::Result<Child> {
        let (program, config) = (self.machine.runtime.join("containerd"), self.text("containerd.toml"));
        namespaces.spawn("containerd", &program, ["--config", &config], &[], &self.path("containerd.log"))
    }

    pub(super) fn spawn_kubelet(&self, namespaces: &Namespaces, sync: &str) -> anyhow::Result<Child> {
        self.write("kubelet.json", &self.kubelet(namespaces.cgroup(), sync).to_string())?;
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfigs.kubelet.display());
        let (name, address) = (format!("--hostname-override={NAME}"), format!("--node-ip={ADDRESS}"));
        let config = format!("--config={}", self.text("kubelet.json"));
        self.spawn(namespaces, Component::Kubelet, &[&config, &kubeconfig, &name, &address])
    }

    pub(super) fn spawn_scheduler(&self, namespaces: &Namespaces) -> anyhow::Result<Child> {
        let flags = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
        let flags = flags.map(|flag| format!("--{flag}={}", self.kubeconfigs.scheduler.display()));
        let args: Vec<&str> = flags.iter().map(String::as_str).chain(["--leader-elect=false"]).collect();
        self.spawn(namespaces, Component::Scheduler, &args)
    }

    pub(super) fn spawn_proxy(&self, namespaces: &Namespaces) -> anyhow::Result<Child> {
        self.spawn(namespaces, Component::Proxy, &[&format!("--config={}", self.text("proxy.json"))])
    }

    pub(super) fn spawn_dns(&self, namespaces: &Namespaces) -> anyhow::Result<Child> {
        let config = self.text("Corefile");
        namespaces.spawn("coredns", &self.machine.dns, ["-conf", &config], &[], &self.path("coredns.log"))
    }

    fn spawn(&self, namespaces: &Namespaces, component: Component, args: &[&str]) -> anyhow::Result<Child> {
        let tool = self.binaries.tool(component)?;
        let log = self.path(&format!("{}.log", component.name()));
        namespaces.spawn(component.name(), &tool.program, tool.args(args.iter().copied()), &[("GOGC", "200")], &log)
    }

    fn containerd(&self) -> String {
        let (plugins, network) = (self.machine.runtime.display(), self.text("cni"));
        format!(
            r#"version = 3
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.nri.v1.nri",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
disable_apparmor = true
# Without CAP_SYS_RESOURCE nobody may lower it, and runc fails on trying.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{network}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"#
        )
    }

    fn kubelet(&self, cgroup: &str, sync: &str) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            // Only the pods and the node itself can reach it.
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{cgroup}"),
            "failCgroupV1": false,
            "failSwapOn": false,
            "oomScoreAdj": 0,
            "resolvConf": self.text("resolv.conf"),
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "syncFrequency": sync,
            "nodeStatusUpdateFrequency": "2s",
            "volumePluginDir": "/var/lib/kubelet/plugins-exec",
            // A developer's disk may be nearly full; the images are gone with the node.
            "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
            "imageGCHighThresholdPercent": 100,
        })
    }

    fn proxy(&self) -> Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.kubeconfigs.proxy},
            "mode": "nftables",
            "clusterCIDR": PODS,
            "hostnameOverride": NAME,
            // The machine's limits stay as they are.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "oomScoreAdj": 0,
        })
    }

    fn names(&self) -> String {
        let kubeconfig = self.kubeconfigs.admin.display();
        format!(
            ".:53 {{\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {kubeconfig}\n  }}\n}}\n"
        )
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        write(&self.path(name), content)
    }
}

/// Every packet is routed, so that nothing depends on bridges or their filters.
fn network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "mtu": 1500,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }],
    })
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
