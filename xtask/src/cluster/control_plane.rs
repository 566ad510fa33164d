//! etcd, the API server, the controller manager and the scheduler: keys, configuration and command lines.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::certificates::{Authority, Signed, token_keys};
use super::folder::Folder;
use super::layout::{Layout, Ports};
use super::network::{Network, SERVICES};
use super::processes::Launch;

/// The API server's address for pods, the first of [`SERVICES`].
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Every audited request is one line; no bodies, for those would hold secrets.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
";

/// An address of the machine that is not loopback, which the API server wants for the endpoints of its Service.
fn own_address() -> Ipv4Addr {
    // Connecting a datagram socket asks the routing table only; nothing is sent.
    let ask = || -> std::io::Result<std::net::SocketAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    match ask().map(|address| address.ip()) {
        Ok(std::net::IpAddr::V4(address)) if !address.is_loopback() => address,
        // A machine without network: nobody can use those endpoints, and any valid address will do.
        _ => Ipv4Addr::new(192, 0, 2, 1),
    }
}

/// The address pods and nodes use for the API server.
fn advertised(network: Option<&Network>) -> Ipv4Addr {
    network.map_or_else(own_address, Network::machine)
}

/// Writes keys, certificates, kubeconfigs and the audit policy.
pub(super) fn write_files(folder: &Folder, ports: Ports, network: Option<&Network>) -> Result<()> {
    let authority = Authority::new()?;
    folder.write("pki/ca.crt", &authority.certificate)?;
    let tokens = token_keys()?;
    folder.write("pki/service-accounts.key", &tokens.private)?;
    folder.write("pki/service-accounts.pub", &tokens.public)?;

    let advertised = advertised(network);
    let server = authority.server(
        "kube-apiserver",
        None,
        &[
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ],
        &[Ipv4Addr::LOCALHOST, API_SERVICE, advertised],
    )?;
    write_signed(folder, "apiserver", &server)?;
    write_signed(folder, "apiserver-kubelet", &authority.client("kube-apiserver", Some("system:masters"))?)?;

    let local = format!("https://127.0.0.1:{}", ports.api_server);
    for (name, user, group) in [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
    ] {
        let signed = authority.client(user, group)?;
        folder.write(&format!("{name}.kubeconfig"), &kubeconfig(&local, &authority, &signed).to_string())?;
    }
    if let Some(network) = network {
        let remote = format!("https://{}:{}", network.machine(), ports.api_server);
        let node = super::node::NAME;
        let kubelet = authority.server(
            &format!("system:node:{node}"),
            Some("system:nodes"),
            &[node],
            &[Ipv4Addr::LOCALHOST, network.node()],
        )?;
        write_signed(folder, "kubelet", &kubelet)?;
        folder.write("kubelet.kubeconfig", &kubeconfig(&remote, &authority, &kubelet).to_string())?;
        let proxy = authority.client("system:kube-proxy", None)?;
        folder.write("proxy.kubeconfig", &kubeconfig(&remote, &authority, &proxy).to_string())?;
    }
    folder.write("audit-policy.yaml", AUDIT_POLICY)
}

fn write_signed(folder: &Folder, name: &str, signed: &Signed) -> Result<()> {
    folder.write(&format!("pki/{name}.crt"), &signed.certificate)?;
    folder.write(&format!("pki/{name}.key"), &signed.key)
}

/// Self-contained, so that it may be copied anywhere. JSON is YAML too.
fn kubeconfig(server: &str, authority: &Authority, user: &Signed) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "agents-test", "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(&authority.certificate),
        }}],
        "users": [{"name": "agents-test", "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate),
            "client-key-data": STANDARD.encode(&user.key),
        }}],
        "contexts": [{"name": "agents-test", "context": {"cluster": "agents-test", "user": "agents-test"}}],
        "current-context": "agents-test",
    })
}

pub(super) fn etcd(layout: &Layout) -> Result<Launch> {
    let (client, peer) = (layout.ports.etcd, layout.ports.etcd_peer);
    Ok(Launch::new(
        layout.programs.path("etcd")?,
        vec![
            format!("--data-dir={}", layout.folder.text("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
            // A test cluster survives the death of etcd, which keeps the page cache, and need not survive the machine's.
            "--unsafe-no-fsync".to_owned(),
            // Watch lists end with a bookmark, and without progress an idle one waits for ten minutes.
            "--watch-progress-notify-interval=5s".to_owned(),
        ],
    ))
}

pub(super) fn api_server(layout: &Layout) -> Result<Launch> {
    let folder = &layout.folder;
    let bind = if layout.network.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", layout.ports.etcd),
        format!("--secure-port={}", layout.ports.api_server),
        format!("--bind-address={bind}"),
        format!("--advertise-address={}", advertised(layout.network.as_ref())),
        format!("--tls-cert-file={}", folder.text("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", folder.text("pki/apiserver.key")),
        format!("--client-ca-file={}", folder.text("pki/ca.crt")),
        format!("--service-account-key-file={}", folder.text("pki/service-accounts.pub")),
        format!("--service-account-signing-key-file={}", folder.text("pki/service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--audit-policy-file={}", folder.text("audit-policy.yaml")),
        format!("--audit-log-path={}", folder.text("audit.log")),
        // A request is on disk before it is answered, so that a count right after the answer is exact.
        "--audit-log-mode=blocking".to_owned(),
        "--audit-log-maxsize=4096".to_owned(),
    ];
    if layout.has_controllers() {
        arguments.push("--enable-admission-plugins=NodeRestriction".to_owned());
    } else {
        // Nobody makes the default service accounts, and every pod would be refused for want of one.
        arguments.push("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    if layout.network.is_some() {
        arguments.extend([
            format!("--kubelet-client-certificate={}", folder.text("pki/apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", folder.text("pki/apiserver-kubelet.key")),
            format!("--kubelet-certificate-authority={}", folder.text("pki/ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            // Webhooks are called at their pods, for the machine has no rules for service addresses.
            "--enable-aggregator-routing=true".to_owned(),
        ]);
    }
    Ok(Launch::new(layout.programs.path("kube-apiserver")?, arguments))
}

/// What both clients of the API server share. The default rates would be what is measured.
fn client_arguments(layout: &Layout, name: &str, port: u16) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.folder.text(&format!("{name}.kubeconfig"))),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
    ]
}

pub(super) fn controller_manager(layout: &Layout) -> Result<Launch> {
    let folder = &layout.folder;
    let mut arguments = client_arguments(layout, "controller-manager", layout.ports.controller_manager);
    arguments.extend([
        format!("--service-account-private-key-file={}", folder.text("pki/service-accounts.key")),
        format!("--root-ca-file={}", folder.text("pki/ca.crt")),
        // Each controller then stands in the audit log under its own name.
        "--use-service-account-credentials=true".to_owned(),
        "--controllers=*,-node-ipam-controller,-cloud-node-lifecycle-controller".to_owned(),
    ]);
    Ok(Launch::new(layout.programs.path("kube-controller-manager")?, arguments))
}

pub(super) fn scheduler(layout: &Layout) -> Result<Launch> {
    let arguments = client_arguments(layout, "scheduler", layout.ports.scheduler);
    Ok(Launch::new(layout.programs.path("kube-scheduler")?, arguments))
}
