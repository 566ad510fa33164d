//! What starts each component of a cluster.

use anyhow::{Context as _, Result};

use super::layout::{Component, Layout};
use super::processes::{Identity, Launch};
use super::{control_plane, node};

/// The program of a component with its arguments.
pub(super) fn launch(layout: &Layout, component: Component) -> Result<Launch> {
    let first = || {
        let identity = layout.identity(Component::Namespaces).filter(Identity::is_alive);
        identity.map(|identity| identity.pid).context("the node's namespaces are gone")
    };
    match component {
        Component::Etcd => control_plane::etcd(layout),
        Component::ApiServer => control_plane::api_server(layout),
        Component::ControllerManager => control_plane::controller_manager(layout),
        Component::Scheduler => control_plane::scheduler(layout),
        Component::Namespaces => Ok(node::namespaces(layout)),
        Component::Containerd => node::containerd(layout, first()?),
        Component::Kubelet => node::kubelet(layout, layout.network()?, first()?),
        Component::Proxy => node::proxy(layout, first()?),
    }
}
