//! The one link between the machine and a node: a pair of virtual interfaces, one end in the node's own network.
//!
//! Bridge, port mappings and every rule of kube-proxy live in the node's network namespace and end with it; the machine
//! itself gets this interface and one route, which the kernel removes together with the namespace. Pods reach each
//! other, Services, and whatever listens on the machine's end of the link. Everything else is unreachable at once, so
//! that no test can come to depend on the internet or waits for an answer that never comes.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::packages::locate;
use super::processes::{run, run_with_input};

/// The range of Service addresses.
pub(super) const SERVICES: &str = "10.96.0.0/16";

/// The bridge that connects the pods, inside the node's namespace.
pub(super) const BRIDGE: &str = "pods0";

/// The addresses of one node; clusters on the same machine differ in `index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    index: u8,
    /// The cluster's key, written on the interface: another cluster may use the same name later.
    key: String,
}

impl Network {
    /// The machine's end of the link; pods reach servers of the machine there.
    pub(super) fn machine(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 243, self.index, 1)
    }

    /// The node's end: its internal address.
    pub(super) fn node(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 243, self.index, 2)
    }

    /// The range pods get their addresses from.
    pub(super) fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.index)
    }

    fn link(&self) -> String {
        format!("agents{}", self.index)
    }

    /// Connects the network namespace of a process; the first free index is taken.
    pub(super) fn connect(key: &str, process: i32) -> Result<Self> {
        let ip = locate("ip").context("ip of iproute2 is missing")?;
        let start = u8::from_str_radix(key.get(..2).unwrap_or_default(), 16).unwrap_or_default();
        let process = process.to_string();
        for offset in 0..=u8::MAX {
            let network = Self { index: start.wrapping_add(offset), key: key.to_owned() };
            // The kernel refuses a name that exists, which is what makes the choice atomic.
            if network.interface().exists() {
                continue;
            }
            run(Command::new(&ip)
                .args(["link", "add", &network.link(), "alias", key, "type", "veth"])
                .args(["peer", "name", "eth0", "netns", &process]))?;
            let (link, machine, node) = (network.link(), network.machine(), network.node());
            let outside = format!(
                "address add {machine}/30 dev {link}\nlink set {link} up\nroute add {} via {node} dev {link}\n",
                network.pods()
            );
            // The rules of Services translate an address only after a route for it was found; what a pod sends to an
            // address of theirs that no rule knows must not leave.
            let inside = format!(
                "link set lo up\naddress add {node}/30 dev eth0\nlink set eth0 up\n\
                 route add {SERVICES} via {machine}\nrule add iif {BRIDGE} to {SERVICES} unreachable\n"
            );
            run_with_input(Command::new(&ip).args(["-batch", "-"]), &outside)?;
            let mut enter = Command::new("nsenter");
            enter.args(["--target", &process, "--net", "--"]).arg(&ip).args(["-batch", "-"]);
            run_with_input(&mut enter, &inside)?;
            return Ok(network);
        }
        bail!("all 256 networks for test clusters are taken; `ip link` shows them as agents0 to agents255")
    }

    fn interface(&self) -> PathBuf {
        PathBuf::from("/sys/class/net").join(self.link())
    }

    /// Waits for the kernel to remove what belonged to the ended namespace, after asking it to.
    pub(super) fn remove(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while fs::read_to_string(self.interface().join("ifalias")).is_ok_and(|alias| alias.trim() == self.key) {
            if let Some(ip) = locate("ip") {
                // It may vanish in this very moment by itself.
                Command::new(ip).args(["link", "delete", &self.link()]).output().ok();
            }
            if Instant::now() > deadline {
                bail!("interface {} does not go away", self.link());
            }
        }
        Ok(())
    }
}
