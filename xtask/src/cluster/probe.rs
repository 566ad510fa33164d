//! Whether a component answers, asked in the cheapest way it understands.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::clients;
use super::layout::{Component, Layout};
use super::processes::run;

const LIMIT: Duration = Duration::from_secs(2);

/// `Ok` when the component is ready, else what it answered instead.
pub(super) fn ready(layout: &Layout, component: Component) -> Result<()> {
    let ports = &layout.ports;
    let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    match component {
        Component::Etcd => get(local(ports.etcd), "/health"),
        Component::ApiServer => {
            // A kubectl is a costly way to learn that nobody listens yet.
            connect(local(ports.api_server))?;
            run(clients::kubectl(layout)?.args(["get", "--raw=/readyz"])).map(drop)
        }
        Component::ControllerManager => connect(local(ports.controller_manager)).map(drop),
        Component::Scheduler => connect(local(ports.scheduler)).map(drop),
        Component::Namespaces => {
            if !layout.folder.file("namespaces-ready").exists() {
                bail!("the namespaces are not set up");
            }
            Ok(())
        }
        Component::Containerd => run(clients::ctr(layout)?.arg("version")).map(drop),
        Component::Kubelet => get(SocketAddr::new(layout.network()?.node().into(), 10248), "/healthz"),
        Component::Proxy => get(SocketAddr::new(layout.network()?.node().into(), 10256), "/healthz"),
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("{address} does not answer"))?;
    stream.set_read_timeout(Some(LIMIT)).context("cannot limit reading")?;
    stream.set_write_timeout(Some(LIMIT)).context("cannot limit writing")?;
    Ok(stream)
}

/// A plain request for one of the health pages, which are short.
fn get(address: SocketAddr, path: &str) -> Result<()> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").context("cannot ask")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).with_context(|| format!("{address} breaks off"))?;
    let line = answer.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) != Some("200") {
        bail!("{address}{path} answers {line:?}");
    }
    Ok(())
}
