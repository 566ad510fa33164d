//! The control groups of a node's pods: one group of ours in every hierarchy, made before the kubelet, removed after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The kubelet's `cgroupRoot`.
pub(super) fn root(key: &str) -> String {
    format!("/agents-test-{key}")
}

/// Every mounted hierarchy: one per controller in version 1, one in all in version 2.
fn hierarchies(table: &str) -> Vec<(PathBuf, bool)> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            match kind {
                "cgroup" => Some((PathBuf::from(path), false)),
                "cgroup2" => Some((PathBuf::from(path), true)),
                _ => None,
            }
        })
        .collect()
}

fn mounted() -> Result<Vec<(PathBuf, bool)>> {
    Ok(hierarchies(&fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?))
}

/// Makes the group in every hierarchy, with the controllers the kubelet insists on.
pub(super) fn create(key: &str) -> Result<()> {
    let name = root(key);
    for (hierarchy, unified) in mounted()? {
        let group = hierarchy.join(name.trim_start_matches('/'));
        fs::create_dir_all(&group).with_context(|| format!("cannot make control group {}", group.display()))?;
        if unified {
            delegate(&hierarchy)?;
        }
        // A fresh cpuset of version 1 is empty, and no process can enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let from = hierarchy.join(file);
            if !unified && from.exists() {
                let value = fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
                fs::write(group.join(file), value.trim()).with_context(|| format!("cannot set {file} of {name}"))?;
            }
        }
    }
    Ok(())
}

/// Hands every controller of the root of version 2 down to its children.
fn delegate(hierarchy: &Path) -> Result<()> {
    let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).context("cannot list controllers")?;
    for controller in controllers.split_ascii_whitespace() {
        fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("cannot delegate the {controller} controller"))?;
    }
    Ok(())
}

/// Removes the groups of a cluster whose processes have been killed.
pub(super) fn remove(key: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    for (hierarchy, _) in mounted()? {
        let group = hierarchy.join(root(key).trim_start_matches('/'));
        while group.exists() {
            // A group is busy until the last killed process in it has been reaped.
            match remove_tree(&group) {
                Ok(()) => {}
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot remove control group {}", group.display()));
                }
            }
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_the_table_are_read() {
        let table = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            hierarchies(table),
            [(PathBuf::from("/sys/fs/cgroup/cpu"), false), (PathBuf::from("/sys/fs/cgroup/unified"), true)]
        );
    }
}
