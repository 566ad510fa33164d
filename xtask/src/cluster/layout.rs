//! What a cluster consists of: its components, and everything that is decided before the first of them starts.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::network::Network;
use super::processes::{Identity, Lifetime};
use super::programs::Programs;

/// A program of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The database.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers of Kubernetes itself.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The first process of the node's namespaces; the node dies with it and is not restarted.
    Namespaces,
    /// The container runtime.
    Containerd,
    /// The kubelet.
    Kubelet,
    /// The Service rules.
    Proxy,
}

impl Component {
    /// Every component, in the order of starting.
    pub const ALL: [Self; 8] = [
        Self::Namespaces,
        Self::Etcd,
        Self::ApiServer,
        Self::Containerd,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kubelet,
        Self::Proxy,
    ];

    /// Its name, as in the pid files, logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Namespaces => "namespaces",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    /// Whether it runs as the child of a program that brings it into its namespaces.
    pub(super) fn is_wrapped(self) -> bool {
        match self {
            Self::Etcd | Self::ApiServer | Self::ControllerManager | Self::Scheduler => false,
            Self::Namespaces | Self::Containerd | Self::Kubelet | Self::Proxy => true,
        }
    }
}

/// Ports of the machine, all on the loopback interface but the API server's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
    pub(super) api_server: u16,
    pub(super) controller_manager: u16,
    pub(super) scheduler: u16,
}

impl Ports {
    /// Free ports, below those the kernel hands out by itself: a server that is killed and started again must find its
    /// port as it left it. The cluster's key spreads clusters that start in the same moment.
    pub(super) fn choose(key: &str) -> Result<Self> {
        const FIRST: u32 = 20_000;
        const COUNT: u32 = 10_000;
        let start = u32::from_str_radix(key, 16).unwrap_or_default();
        let mut free = (0..COUNT)
            .filter_map(|step| u16::try_from(FIRST + (start % COUNT + step) % COUNT).ok())
            .filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
        let mut next = || free.next().context("no port from 20000 to 29999 is free");
        Ok(Self {
            etcd: next()?,
            etcd_peer: next()?,
            api_server: next()?,
            controller_manager: next()?,
            scheduler: next()?,
        })
    }
}

/// All that is decided before the first program starts; kept beside the cluster for later commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) folder: Folder,
    pub(super) lifetime: Lifetime,
    pub(super) programs: Programs,
    pub(super) ports: Ports,
    /// There if the cluster has a node.
    pub(super) network: Option<Network>,
}

impl Layout {
    pub(super) fn has_controllers(&self) -> bool {
        self.programs.has("kube-controller-manager")
    }

    pub(super) fn components(&self) -> impl Iterator<Item = Component> {
        Component::ALL.into_iter().filter(|component| match component {
            Component::Etcd | Component::ApiServer => true,
            Component::ControllerManager | Component::Scheduler => self.has_controllers(),
            Component::Namespaces | Component::Containerd | Component::Kubelet | Component::Proxy => {
                self.network.is_some()
            }
        })
    }

    pub(super) fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("this cluster has no node")
    }

    pub(super) fn identity(&self, component: Component) -> Option<Identity> {
        self.folder.read_json(&format!("pids/{}", component.name()))
    }

    /// The port a component serves on, for people.
    pub(super) fn port(&self, component: Component) -> String {
        let ports = &self.ports;
        match component {
            Component::Etcd => ports.etcd.to_string(),
            Component::ApiServer => ports.api_server.to_string(),
            Component::ControllerManager => ports.controller_manager.to_string(),
            Component::Scheduler => ports.scheduler.to_string(),
            Component::Kubelet => "10250".to_owned(),
            Component::Proxy => "10256".to_owned(),
            Component::Namespaces | Component::Containerd => "-".to_owned(),
        }
    }
}
