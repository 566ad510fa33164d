//! Container images as files: Docker's archive format, written without a container engine and the same for the same
//! input, byte for byte. Reads the files it is told to pack and writes one archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::programs::hex;

/// The image every pod's sandbox is made of.
pub const PAUSE: &str = "registry.k8s.io/pause:test";

/// What stands at one path of an image; everything belongs to root.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A file with these bytes.
    Bytes {
        /// Permission bits.
        mode: u32,
        /// The content.
        content: Vec<u8>,
    },
    /// A file copied from this one.
    Copy {
        /// Permission bits.
        mode: u32,
        /// The file to read.
        from: PathBuf,
    },
    /// A symbolic link to this target.
    Link(String),
    /// A folder with these permission bits.
    Folder(u32),
}

impl Entry {
    /// An executable copied from a file.
    pub fn program(from: impl Into<PathBuf>) -> Self {
        Self::Copy { mode: 0o755, from: from.into() }
    }

    /// A readable file with this text.
    pub fn text(content: impl Into<String>) -> Self {
        Self::Bytes { mode: 0o644, content: content.into().into_bytes() }
    }
}

/// One layer of an image, lower ones first.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Entries by absolute path; the folders above them are made.
    Entries(BTreeMap<String, Entry>),
    /// A tar file as it is.
    Archive(PathBuf),
}

/// An image to write and import.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Its full name with registry and tag, e.g. `docker.io/library/busybox:test`; not the tag `latest`, which the
    /// kubelet would try to pull.
    pub reference: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The numeric user a container runs as; root if empty.
    pub user: String,
    /// The layers.
    pub layers: Vec<Layer>,
}

impl ImageSpec {
    /// An image with this name and entrypoint, the usual PATH, and no layers yet.
    pub fn new(reference: &str, entrypoint: &[&str]) -> Self {
        Self {
            reference: reference.to_owned(),
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            environment: BTreeMap::from([(
                "PATH".to_owned(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            )]),
            user: String::new(),
            layers: Vec::new(),
        }
    }

    /// Adds a layer of entries by absolute path.
    #[must_use]
    pub fn with<Name: Into<String>>(mut self, entries: impl IntoIterator<Item = (Name, Entry)>) -> Self {
        self.layers.push(Layer::Entries(entries.into_iter().map(|(path, entry)| (path.into(), entry)).collect()));
        self
    }

    /// Writes the archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check()?;
        let folder = tempfile::tempdir_in(path.parent().unwrap_or(Path::new("."))).context("cannot make a folder")?;
        let mut layers = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let file = match layer {
                Layer::Archive(path) => path.clone(),
                Layer::Entries(entries) => {
                    let file = folder.path().join(format!("{index}.tar"));
                    write_layer(entries, &file)?;
                    file
                }
            };
            let digest = digest(&file)?;
            layers.push((file, digest));
        }
        let config = self.config(&layers).to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(config.as_bytes())));
        let names: Vec<String> = layers.iter().map(|(_, digest)| format!("{digest}/layer.tar")).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": names}]).to_string();

        let output = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut archive = Builder::new(BufWriter::new(output));
        append(&mut archive, &config_name, config.as_bytes(), config.len() as u64)?;
        for ((file, _), name) in layers.iter().zip(&names) {
            let from = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            let size = from.metadata().with_context(|| format!("cannot measure {}", file.display()))?.len();
            append(&mut archive, name, from, size)?;
        }
        append(&mut archive, "manifest.json", manifest.as_bytes(), manifest.len() as u64)?;
        archive
            .into_inner()
            .and_then(|mut output| output.flush())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn check(&self) -> Result<()> {
        let (name, tag) = self.reference.rsplit_once(':').unwrap_or((&self.reference, ""));
        if tag.is_empty() || tag == "latest" || tag.contains('/') {
            bail!("image {} needs a tag other than latest, for the kubelet pulls without one", self.reference);
        }
        if !name.contains('/') || !name.split('/').next().is_some_and(|host| host.contains(['.', ':'])) {
            bail!("image {} needs its registry's host, e.g. docker.io/library/{}", self.reference, self.reference);
        }
        if self.layers.is_empty() {
            bail!("image {} has no layers", self.reference);
        }
        Ok(())
    }

    fn config(&self, layers: &[(PathBuf, String)]) -> serde_json::Value {
        let digests: Vec<String> = layers.iter().map(|(_, digest)| format!("sha256:{digest}")).collect();
        let environment: Vec<String> = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": environment, "User": self.user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": vec![json!({"created_by": "xtask"}); layers.len()],
        })
    }
}

/// Adds the folders above every entry, with the permissions their names call for.
fn with_parents(entries: &BTreeMap<String, Entry>) -> Result<BTreeMap<String, Entry>> {
    let mut all = BTreeMap::new();
    for (path, entry) in entries {
        let Some(relative) = path.strip_prefix('/') else {
            bail!("{path} is not an absolute path");
        };
        let parts: Vec<&str> = relative.split('/').collect();
        if parts.iter().any(|part| part.is_empty() || *part == "." || *part == "..") {
            bail!("{path} is not a plain path");
        }
        for length in 1..parts.len() {
            let parent = parts[..length].join("/");
            match all.entry(parent).or_insert(Entry::Folder(0o755)) {
                Entry::Folder(_) => {}
                Entry::Bytes { .. } | Entry::Copy { .. } | Entry::Link(_) => bail!("{path} lies below a file"),
            }
        }
        all.insert(relative.to_owned(), entry.clone());
    }
    Ok(all)
}

fn write_layer(entries: &BTreeMap<String, Entry>, path: &Path) -> Result<()> {
    let output = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Builder::new(BufWriter::new(output));
    for (name, entry) in with_parents(entries)? {
        let written = match &entry {
            Entry::Folder(mode) => {
                let mut header = plain(EntryType::Directory, *mode, 0);
                archive.append_data(&mut header, format!("{name}/"), io::empty())
            }
            Entry::Link(target) => archive.append_link(&mut plain(EntryType::Symlink, 0o777, 0), &name, target),
            Entry::Bytes { mode, content } => {
                let mut header = plain(EntryType::Regular, *mode, content.len() as u64);
                archive.append_data(&mut header, &name, content.as_slice())
            }
            Entry::Copy { mode, from } => {
                let file = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
                let size = file.metadata().with_context(|| format!("cannot measure {}", from.display()))?.len();
                archive.append_data(&mut plain(EntryType::Regular, *mode, size), &name, file)
            }
        };
        written.with_context(|| format!("cannot pack {name}"))?;
    }
    archive
        .into_inner()
        .and_then(|mut output| output.flush())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A header that tells nothing of the machine or the hour.
fn plain(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(archive: &mut Builder<BufWriter<File>>, name: &str, content: impl Read, size: u64) -> Result<()> {
    archive
        .append_data(&mut plain(EntryType::Regular, 0o644, size), name, content)
        .with_context(|| format!("cannot pack {name}"))
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(hex(&hash.finalize())),
            length => hash.update(&block[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(folder: &Path) -> ImageSpec {
        let program = folder.join("program");
        std::fs::write(&program, b"\x7fELF and so on").unwrap();
        let deep = format!("/opt/{}/file", "long-name/".repeat(30).trim_end_matches('/'));
        ImageSpec::new("docker.io/library/sample:test", &["/bin/program", "run"]).with([
            ("/bin/program".to_owned(), Entry::program(program)),
            ("/bin/alias".to_owned(), Entry::Link("program".to_owned())),
            ("/etc/motd".to_owned(), Entry::text("hello\n")),
            ("/tmp".to_owned(), Entry::Folder(0o1777)),
            (deep, Entry::text("deep")),
        ])
    }

    fn read(bytes: &[u8]) -> BTreeMap<String, (EntryType, u32, Vec<u8>)> {
        tar::Archive::new(bytes)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let header = entry.header().clone();
                let mut content = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let path = entry.path().unwrap().display().to_string();
                entry.read_to_end(&mut content).unwrap();
                assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
                (path, (header.entry_type(), header.mode().unwrap(), content))
            })
            .collect()
    }

    #[test]
    fn an_archive_holds_what_was_asked_for_under_its_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        spec(folder.path()).write(&path).unwrap();

        let outer = read(&std::fs::read(&path).unwrap());
        let manifest: serde_json::Value = serde_json::from_slice(&outer["manifest.json"].2).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "docker.io/library/sample:test");
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let config_bytes = &outer[config_name].2;
        assert_eq!(config_name, format!("{}.json", hex(&Sha256::digest(config_bytes))));
        let config: serde_json::Value = serde_json::from_slice(config_bytes).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/program", "run"]));
        let layer = &outer[manifest[0]["Layers"][0].as_str().unwrap()].2;
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex(&Sha256::digest(layer))));

        let inner = read(layer);
        assert_eq!(inner["bin/program"], (EntryType::Regular, 0o755, b"\x7fELF and so on".to_vec()));
        assert_eq!(inner["bin/alias"], (EntryType::Symlink, 0o777, b"program".to_vec()));
        assert_eq!(inner["etc/motd"], (EntryType::Regular, 0o644, b"hello\n".to_vec()));
        assert_eq!(inner["tmp/"].1, 0o1777);
        assert_eq!(inner["bin/"].0, EntryType::Directory);
        assert!(inner.keys().any(|name| name.len() > 255 && name.ends_with("/file")));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.tar"), folder.path().join("2.tar"));
        spec(folder.path()).write(&first).unwrap();
        // A newer file with the same bytes is the same image.
        spec(folder.path()).write(&second).unwrap();
        assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
    }

    #[test]
    fn bad_input_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let refused = |reference: &str, entry: &str| {
            let image = ImageSpec::new(reference, &[]).with([("/bin", Entry::text("")), (entry, Entry::text(""))]);
            format!("{:#}", image.write(&path).unwrap_err())
        };
        assert!(refused("docker.io/library/a:latest", "/a").contains("tag other than latest"));
        assert!(refused("docker.io/library/a", "/a").contains("tag other than latest"));
        assert!(refused("busybox:test", "/a").contains("registry's host"));
        assert!(refused("docker.io/library/a:test", "a/b").contains("a/b is not an absolute path"));
        assert!(refused("docker.io/library/a:test", "/a/../b").contains("not a plain path"));
        assert!(refused("docker.io/library/a:test", "/bin/sh").contains("lies below a file"));
    }
}
