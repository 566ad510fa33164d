//! The programs that ask a cluster's components for something, as its administrator.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::layout::Layout;
use super::node;
use super::processes::COLLECT_SELDOM;

/// The kubeconfig of an administrator.
pub(super) fn kubeconfig(layout: &Layout) -> PathBuf {
    layout.folder.file("admin.kubeconfig")
}

/// kubectl without arguments.
pub(super) fn kubectl(layout: &Layout) -> Result<Command> {
    let mut command = Command::new(layout.programs.path("kubectl")?);
    command
        .env(COLLECT_SELDOM.0, COLLECT_SELDOM.1)
        .env("KUBECONFIG", kubeconfig(layout))
        .env("KUBECACHEDIR", layout.folder.file("kubectl-cache"));
    Ok(command)
}

/// ctr, which speaks to the node's containerd.
pub(super) fn ctr(layout: &Layout) -> Result<Command> {
    let mut command = Command::new(layout.programs.path("ctr")?);
    command.arg("--address").arg(node::containerd_socket(&layout.folder));
    Ok(command)
}
