//! One real node: containerd, kubelet and kube-proxy inside namespaces of their own.
//!
//! The node's first process owns a mount, process, network and IPC namespace. When it ends, by whatever cause, the
//! kernel kills every process in there, containers and their shims included, and takes mounts, bridge, addresses and
//! packet filter rules with it. That is what makes a node that can be killed at any moment and leaves the machine clean.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::folder::Folder;
use super::layout::Layout;
use super::network::{BRIDGE, Network};
use super::packages::{locate, plugin_folder};
use super::processes::{Launch, SYSTEM_PATH};
use super::{cgroups, image};

/// The node's name.
pub const NAME: &str = "node1";

/// Folders that programs of a node write to without asking; each is hidden under a file system of the node's own.
pub(super) const HIDDEN: &[&str] =
    &["/run/containerd", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/var/log/pods"];

/// Runs as the first process of the namespaces: arranges the mounts, reports, and reaps what is left to it.
const FIRST_PROCESS: &str = r#"
set -e
ready=$1; shift
mount --make-rshared /
for hidden in "$@"; do mount -t tmpfs -o mode=0755 tmpfs "$hidden"; done
echo 1 >/proc/sys/net/ipv4/ip_forward
# Replies between two pods of one bridge must pass the rules that translated the Service's address.
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables; fi
: >"$ready"
while :; do sleep 2147483647 & wait $!; done
"#;

pub(super) fn namespaces(layout: &Layout) -> Launch {
    let mut arguments: Vec<String> = [
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount",
        "--propagation",
        "private",
        "--mount-proc",
        "--net",
        "--ipc",
    ]
    .into_iter()
    .chain(["--", "/bin/sh", "-c", FIRST_PROCESS, "first-process"])
    .map(str::to_owned)
    .collect();
    arguments.push(layout.folder.text("namespaces-ready"));
    arguments.extend(HIDDEN.iter().map(ToString::to_string));
    Launch::new("unshare", arguments)
}

/// Writes the configuration of the node's programs and makes its control groups.
pub(super) fn write_files(folder: &Folder, network: &Network) -> Result<()> {
    cgroups::create(&folder.key)?;
    for dir in ["cni", "containerd", "kubelet"] {
        fs::create_dir_all(folder.file(dir)).with_context(|| format!("cannot create {dir}"))?;
    }
    let plugins = plugin_folder().context("the network plugins are missing")?;
    folder.write("cni/10-bridge.conflist", &network_plugins(folder, network).to_string())?;
    folder.write("containerd.toml", &containerd_config(folder, &plugins.display().to_string()))?;
    folder.write("kubelet.json", &kubelet_config(folder, network).to_string())?;
    folder.write("proxy.json", &proxy_config(folder, network).to_string())?;
    // A stub resolver of the machine listens on its loopback interface, which a pod cannot reach anyway.
    folder.write("resolv.conf", "nameserver 10.96.0.10\noptions attempts:1 timeout:2\n")
}

fn network_plugins(folder: &Folder, network: &Network) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "agents-test",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": network.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": folder.text("cni-addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

pub(super) fn containerd_socket(folder: &Folder) -> PathBuf {
    folder.run.join("containerd.sock")
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    // JSON's escapes are a subset of TOML's.
    Value::from(text).to_string()
}

fn containerd_config(folder: &Folder, plugins: &str) -> String {
    let root = quoted(&folder.text("containerd"));
    let optional = quoted(&folder.text("containerd-opt"));
    let state = quoted(&folder.run.join("containerd").display().to_string());
    let socket = quoted(&containerd_socket(folder).display().to_string());
    let sandbox = quoted(image::PAUSE);
    let (plugins, networks) = (quoted(plugins), quoted(&folder.text("cni")));
    // Without CAP_SYS_RESOURCE, runc dies of a negative oom score ("can't get final child's PID from pipe: EOF").
    format!(
        "version = 3
root = {root}
state = {state}
disabled_plugins = ['io.containerd.nri.v1.nri']

[grpc]
address = {socket}

[plugins.'io.containerd.internal.v1.opt']
path = {optional}

[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = {sandbox}

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{plugins}]
conf_dir = {networks}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"
    )
}

fn kubelet_config(folder: &Folder, network: &Network) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": folder.file("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": folder.file("pki/kubelet.crt"),
        "tlsPrivateKeyFile": folder.file("pki/kubelet.key"),
        "healthzBindAddress": network.node().to_string(),
        "readOnlyPort": 0,
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(folder).display()),
        "podLogsDir": folder.file("pod-logs"),
        "resolvConf": folder.file("resolv.conf"),
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        // Machines of either control group version, with or without systemd or swap.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroups::root(&folder.key),
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        // A full disk of the developer must not evict the pods of a test, nor may images be collected: nobody could
        // pull them again.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        // The default rates would be what is measured.
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 0,
    })
}

fn proxy_config(folder: &Folder, network: &Network) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": folder.file("proxy.kubeconfig")},
        "clusterCIDR": network.pods(),
        "hostnameOverride": NAME,
        // These limits belong to the machine and cannot be set from the node's namespace.
        "conntrack": {"maxPerCore": 0},
        "oomScoreAdj": 0,
        "healthzBindAddress": format!("{}:10256", network.node()),
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

/// A launch inside the namespaces of the node's first process.
fn inside(first: i32, program: &std::path::Path, arguments: Vec<String>) -> Launch {
    let mut words: Vec<String> = ["--pid", "--mount", "--net", "--ipc"].map(str::to_owned).to_vec();
    words.extend(["--target".to_owned(), first.to_string(), "--".to_owned(), program.display().to_string()]);
    words.extend(arguments);
    Launch::new("nsenter", words)
}

pub(super) fn containerd(layout: &Layout, first: i32) -> Result<Launch> {
    let program = layout.programs.path("containerd")?;
    let mut launch = inside(first, program, vec!["--config".to_owned(), layout.folder.text("containerd.toml")]);
    // It looks for its shim, and the shim for runc, by name.
    let shim = layout.programs.path("containerd-shim-runc-v2")?.parent().context("the shim is in no folder")?;
    launch.environment.push(("PATH".to_owned(), format!("{}:{SYSTEM_PATH}", shim.display())));
    Ok(launch)
}

pub(super) fn kubelet(layout: &Layout, network: &Network, first: i32) -> Result<Launch> {
    let folder = &layout.folder;
    let arguments = vec![
        format!("--config={}", folder.text("kubelet.json")),
        format!("--kubeconfig={}", folder.text("kubelet.kubeconfig")),
        format!("--root-dir={}", folder.text("kubelet")),
        format!("--cert-dir={}", folder.text("kubelet/pki")),
        format!("--hostname-override={NAME}"),
        format!("--node-ip={}", network.node()),
    ];
    Ok(inside(first, layout.programs.path("kubelet")?, arguments))
}

pub(super) fn proxy(layout: &Layout, first: i32) -> Result<Launch> {
    let arguments = vec![format!("--config={}", layout.folder.text("proxy.json"))];
    Ok(inside(first, layout.programs.path("kube-proxy")?, arguments))
}

/// What keeps a node from running on this machine, packages apart.
pub(super) fn obstacle() -> Option<(&'static str, &'static str)> {
    if !rustix::process::geteuid().is_root() {
        return Some((
            "a cluster with a node needs root, for namespaces, mounts and containers",
            "run it as root, e.g. with sudo",
        ));
    }
    if locate("nsenter").is_none() || locate("unshare").is_none() {
        return Some(("unshare and nsenter are missing", "install util-linux"));
    }
    if !std::path::Path::new("/sys/fs/cgroup").is_dir() {
        return Some(("no control groups are mounted at /sys/fs/cgroup", "mount them there"));
    }
    None
}
