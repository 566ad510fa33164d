//! The images of the tests: the sandbox, a shell, the product, and a Debian root for real agents.
//!
//! All are made of files of this machine; no registry is involved. What takes long is kept in the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::image::{Entry, ImageSpec, Layer, PAUSE};
use super::packages::{self, BUSYBOX, MMDEBSTRAP, locate};
use super::processes::run;
use super::product;
use super::programs::{cache_root, hex, lock};
use super::progress::Progress;

/// A shell and the usual small programs.
pub const SHELL: &str = "docker.io/library/busybox:test";

/// The user containers run as where the image decides.
pub const USER: &str = "65532";

/// The programs of busybox that images offer under their own names.
const LINKS: &[&str] = &[
    "[",
    "awk",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mktemp",
    "mv",
    "nc",
    "nohup",
    "nslookup",
    "od",
    "printenv",
    "printf",
    "ps",
    "pwd",
    "readlink",
    "realpath",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "true",
    "uname",
    "uniq",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
    "xargs",
    "yes",
];

/// Accounts of every image of ours.
fn accounts() -> [(&'static str, Entry); 4] {
    [
        (
            "/etc/passwd",
            Entry::text(format!(
                "root:x:0:0:root:/root:/bin/sh\nnonroot:x:{USER}:{USER}:nonroot:/home/nonroot:/bin/sh\n"
            )),
        ),
        ("/etc/group", Entry::text(format!("root:x:0:\nnonroot:x:{USER}:\n"))),
        ("/etc/nsswitch.conf", Entry::text("passwd: files\ngroup: files\nhosts: files dns\n")),
        ("/tmp", Entry::Folder(0o1777)),
    ]
}

fn busybox() -> Result<PathBuf> {
    let path = locate("busybox").context("busybox is missing")?;
    if !product::is_static(&path)? {
        bail!("{} needs shared libraries; install the package {}", path.display(), BUSYBOX.name);
    }
    Ok(path)
}

/// The entries of busybox and of every name it answers to.
fn busybox_entries() -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::from([("/bin/busybox".to_owned(), Entry::program(busybox()?))]);
    entries.extend(LINKS.iter().map(|name| (format!("/bin/{name}"), Entry::Link("busybox".to_owned()))));
    entries.extend(accounts().map(|(path, entry)| (path.to_owned(), entry)));
    Ok(entries)
}

/// The sandbox's image: a process that waits.
pub fn pause() -> Result<ImageSpec> {
    let entries = [("/bin/busybox", Entry::program(busybox()?)), ("/bin/sleep", Entry::Link("busybox".to_owned()))];
    Ok(ImageSpec::new(PAUSE, &["/bin/sleep", "2147483647"]).with(entries))
}

/// A shell; a container names its command.
pub fn shell() -> Result<ImageSpec> {
    let mut image = ImageSpec::new(SHELL, &[]).with(busybox_entries()?);
    image.environment.insert("HOME".to_owned(), "/tmp".to_owned());
    Ok(image)
}

/// The image that the chart installs when nothing else is said.
pub fn product_reference() -> String {
    format!("ghcr.io/proompteng/agents:{}", env!("CARGO_PKG_VERSION"))
}

/// The product: its two static programs below `/usr/local/bin`, nothing else; `agents` is the entrypoint.
pub fn product(reference: &str, programs: &product::Programs) -> ImageSpec {
    let product::Programs { agents, agent_runner } = programs;
    let entries = [
        ("/usr/local/bin/agents", Entry::program(agents)),
        ("/usr/local/bin/agent-runner", Entry::program(agent_runner)),
    ];
    let mut image = ImageSpec::new(reference, &["/usr/local/bin/agents"]).with(entries.into_iter().chain(accounts()));
    USER.clone_into(&mut image.user);
    image
}

/// A small Debian with git, and these entries on top, e.g. the command of an agent.
pub fn debian(reference: &str, entries: BTreeMap<String, Entry>, progress: &Progress) -> Result<ImageSpec> {
    let mut image = ImageSpec::new(reference, &[]);
    image.layers.push(Layer::Archive(debian_root(progress)?));
    // The lower layer has accounts of its own, and only one is added.
    let mut upper = BTreeMap::from([("/home/nonroot".to_owned(), Entry::Folder(0o777))]);
    upper.extend(entries);
    image.layers.push(Layer::Entries(upper));
    image.environment.insert("HOME".to_owned(), "/home/nonroot".to_owned());
    USER.clone_into(&mut image.user);
    Ok(image)
}

/// What is installed beyond the smallest Debian.
const DEBIAN_PACKAGES: &str = "git,ca-certificates";

/// Makes a root file system from the package sources of this machine, once per machine.
fn debian_root(progress: &Progress) -> Result<PathBuf> {
    let account = format!("nonroot:x:{USER}:{USER}:nonroot:/home/nonroot:/bin/sh");
    let suite = debian_suite(&fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?)?;
    let arguments = [
        "--variant=minbase".to_owned(),
        format!("--include={DEBIAN_PACKAGES}"),
        // Device files and caches have no place in an image.
        "--skip=output/dev".to_owned(),
        "--dpkgopt=path-exclude=/usr/share/man/*".to_owned(),
        "--dpkgopt=path-exclude=/usr/share/locale/*".to_owned(),
        "--dpkgopt=path-exclude=/usr/share/doc/*".to_owned(),
        format!("--customize-hook=echo '{account}' >>\"$1/etc/passwd\""),
        format!("--customize-hook=echo 'nonroot:x:{USER}:' >>\"$1/etc/group\""),
        suite,
    ];
    let mut hash = Sha256::new();
    for argument in &arguments {
        hash.update(argument.as_bytes());
        hash.update([0]);
    }
    let place = cache_root()?.join(format!("debian-{}.tar", hex(&hash.finalize()[..8])));
    if place.is_file() {
        return Ok(place);
    }
    packages::ensure(&[MMDEBSTRAP], progress)?;
    let _lock = lock(&place.with_extension("lock"), "a Debian root", progress)?;
    if place.is_file() {
        return Ok(place);
    }
    progress.tell("making a Debian root with git, once per machine");
    let partial = place.with_extension("partial.tar");
    run(Command::new("mmdebstrap").arg("--quiet").args(&arguments).arg(&partial).env("LC_ALL", "C.UTF-8"))?;
    fs::rename(&partial, &place).with_context(|| format!("cannot move the Debian root to {}", place.display()))?;
    Ok(place)
}

/// The code name of this machine's Debian: the configured package sources serve that one.
fn debian_suite(os_release: &str) -> Result<String> {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    match (value("ID").as_deref(), value("VERSION_CODENAME")) {
        (Some("debian" | "ubuntu"), Some(codename)) => Ok(codename),
        (id, _) => bail!(
            "a Debian root is made from this machine's own package sources, and this is {}",
            id.unwrap_or("no Debian")
        ),
    }
}

/// The archives every node starts with.
#[derive(Debug)]
pub(super) struct Basic(Vec<PathBuf>);

impl Basic {
    /// Writes them into the cache where they are not there yet.
    pub(super) fn prepare(progress: &Progress) -> Result<Self> {
        let bytes = fs::read(busybox()?).context("cannot read busybox")?;
        let mut archives = Vec::new();
        for (name, image) in [("pause", pause()?), ("busybox", shell()?)] {
            let mut hash = Sha256::new();
            hash.update(&bytes);
            hash.update(format!("{image:?}"));
            let place = cache_root()?.join(format!("{name}-{}.tar", hex(&hash.finalize()[..8])));
            write_once(&image, &place, progress)?;
            archives.push(place);
        }
        Ok(Self(archives))
    }

    pub(super) fn archives(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }
}

fn write_once(image: &ImageSpec, place: &Path, progress: &Progress) -> Result<()> {
    if place.is_file() {
        return Ok(());
    }
    let _lock = lock(&place.with_extension("lock"), &image.reference, progress)?;
    let partial = place.with_extension("partial");
    image.write(&partial)?;
    fs::rename(&partial, place).with_context(|| format!("cannot move an image to {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_is_this_machines_debian_or_an_error() {
        assert_eq!(debian_suite("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert_eq!(debian_suite("VERSION_CODENAME=\"noble\"\nID=\"ubuntu\"\n").unwrap(), "noble");
        let error = debian_suite("ID=fedora\n").unwrap_err().to_string();
        assert!(error.ends_with("this is fedora"), "{error}");
    }
}
