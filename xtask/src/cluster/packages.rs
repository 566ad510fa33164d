//! Programs that come with the machine: found, installed where this process may, else named with the exact command.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::programs::{Unavailable, lock};
use super::progress::Progress;

/// A Debian package and a file of it that shows it is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: &'static str,
    probe: Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// A program in one of the folders programs are in.
    Program(&'static str),
    /// A plugin of the container network interface.
    NetworkPlugin(&'static str),
}

const fn program(name: &'static str, program: &'static str) -> Package {
    Package { name, probe: Probe::Program(program) }
}

/// What a node needs beyond the programs that are built.
pub(super) const NODE: &[Package] = &[
    program("runc", "runc"),
    Package { name: "containernetworking-plugins", probe: Probe::NetworkPlugin("bridge") },
    program("iptables", "iptables"),
    program("conntrack", "conntrack"),
    program("iproute2", "ip"),
    program("util-linux", "nsenter"),
    BUSYBOX,
];

/// What installs the published agent CLIs of the tests, where a person has none of their own in PATH.
pub(super) const NPM: Package = program("npm", "npm");

/// The static busybox that test images are made of.
pub(super) const BUSYBOX: Package = program("busybox-static", "busybox");

/// Makes the root file system of Debian images.
pub(super) const MMDEBSTRAP: Package = program("mmdebstrap", "mmdebstrap");

/// `/usr/sbin` is not on everybody's PATH, but is where network programs are.
const PROGRAM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where distributions put the network plugins.
const PLUGIN_FOLDERS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

fn find(name: &str, folders: &[&str]) -> Option<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The place of a program of the machine.
pub(super) fn locate(name: &str) -> Option<PathBuf> {
    find(name, PROGRAM_FOLDERS)
}

/// The folder of the network plugins.
pub(super) fn plugin_folder() -> Option<PathBuf> {
    Some(find("bridge", PLUGIN_FOLDERS)?.parent()?.to_owned())
}

impl Package {
    fn is_installed(self) -> bool {
        match self.probe {
            Probe::Program(name) => locate(name).is_some(),
            Probe::NetworkPlugin(name) => find(name, PLUGIN_FOLDERS).is_some(),
        }
    }
}

fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !package.is_installed()).map(|package| package.name).collect()
}

/// Whether [`ensure`] can succeed here, without installing anything.
pub(super) fn check(packages: &[Package]) -> Result<(), Unavailable> {
    verdict(&missing(packages), locate("apt-get").is_some(), rustix::process::geteuid().is_root())
}

fn verdict(missing: &[&'static str], has_apt: bool, is_root: bool) -> Result<(), Unavailable> {
    if missing.is_empty() || (has_apt && is_root) {
        return Ok(());
    }
    let names = missing.join(" ");
    Err(Unavailable {
        reason: format!("system packages are missing: {names}"),
        how_to_fix: if has_apt {
            format!("run `sudo apt-get update && sudo apt-get install --yes --no-install-recommends {names}`")
        } else {
            format!("install what Debian calls {names} with this system's package manager")
        },
    })
}

/// Installs the packages that are missing, where this process may.
pub(super) fn ensure(packages: &[Package], progress: &Progress) -> Result<()> {
    if missing(packages).is_empty() {
        return Ok(());
    }
    check(packages)?;
    let _lock = machine_lock(progress)?;
    let names = missing(packages);
    if names.is_empty() {
        return Ok(());
    }
    progress.tell(&format!("installing system packages: {}", names.join(" ")));
    // The lists may be there already, and fetching them takes longer than the packages.
    if install(&names).is_err() {
        apt(&["update"])?;
        install(&names)?;
    }
    let still = missing(packages);
    if !still.is_empty() {
        bail!("apt-get installed {}, but their programs are not where they are expected", still.join(", "));
    }
    Ok(())
}

fn install(names: &[&str]) -> Result<String> {
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(names);
    apt(&words)
}

fn apt(words: &[&str]) -> Result<String> {
    super::processes::run(
        Command::new("apt-get").args(words).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8"),
    )
}

fn machine_lock(progress: &Progress) -> Result<File> {
    let path = super::programs::cache_root()?.join("packages.lock");
    lock(&path, "system packages", progress).context("cannot take turns with apt-get")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_command_is_named_where_it_may_not_be_run() {
        assert_eq!(verdict(&["runc"], true, true), Ok(()));
        assert_eq!(verdict(&[], false, false), Ok(()));
        let error = verdict(&["runc", "conntrack"], true, false).unwrap_err();
        assert!(error.how_to_fix.ends_with("--no-install-recommends runc conntrack`"), "{error}");
        let error = verdict(&["runc"], false, true).unwrap_err();
        assert!(error.how_to_fix.contains("runc") && !error.how_to_fix.contains("apt-get"), "{error}");
    }
}
