//! From paths to documents.

use std::{
    fs::{self, FileType},
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::{
    Document, EXTENSIONS, LoadError, MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_FILES, ManifestFault, RUN_FOLDER_MARK,
    RUN_FOLDER_MARKER, Rule, Source, list, text,
    tree::{Node, Place, Tree},
};
use crate::pipes;

/// Deepest folder below the one that was named.
const MAX_DEPTH: usize = 16;
/// Most folder entries looked at.
const MAX_ENTRIES: usize = 100_000;

/// Everything that was read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read {
    /// The documents, in the order of their files' names.
    pub documents: Vec<Document>,
    /// Files and documents that cannot be understood.
    pub faults: Vec<ManifestFault>,
    /// What lies among the manifests, could be one or hold some, and was not read.
    pub skipped: Vec<Skipped>,
}

/// Something that was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub why: &'static str,
}

/// Reads every document of `sources`; empty ones are left out, and those of a list are read one by one.
///
/// # Errors
/// A file that cannot be read, too much, or nothing.
pub fn read(sources: &[Source]) -> Result<Read, LoadError> {
    let mut all = Read::default();
    for source in sources {
        match source {
            Source::Path(path) => {
                let mut search = Search::default();
                search.named(path)?;
                let Search { files, skipped, entries: _ } = search;
                all.skipped.extend(skipped);
                for file in files {
                    all.file(&file)?;
                }
            }
            Source::Text { name, folder, text } => all.bytes(name, folder, text.as_bytes())?,
            Source::Bytes { name, folder, bytes } => all.bytes(name, folder, bytes)?,
        }
    }
    if all.documents.is_empty() && all.faults.is_empty() {
        return Err(LoadError::Nothing);
    }
    Ok(all)
}

/// What was found below one path.
#[derive(Debug, Default)]
struct Search {
    files: Vec<PathBuf>,
    skipped: Vec<Skipped>,
    entries: usize,
}

impl Search {
    /// A path that a person named: whatever it is, it is meant.
    fn named(&mut self, path: &Path) -> Result<(), LoadError> {
        let found = fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        if !found.is_dir() {
            self.files.push(path.to_owned());
            return Ok(());
        }
        if is_run_folder(path) {
            // The run's own manifest; the rest belongs to attempts.
            self.files.push(path.join("run.yaml"));
            self.skip(path, "made by `agents run`: only its run.yaml is read");
            return Ok(());
        }
        self.folder(path, 0)
    }

    fn skip(&mut self, path: &Path, why: &'static str) {
        self.skipped.push(Skipped { path: path.to_owned(), why });
    }

    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), LoadError> {
        let read = |source| LoadError::Read { path: folder.to_owned(), source };
        let mut inside: Vec<(PathBuf, FileType)> = Vec::new();
        for entry in fs::read_dir(folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(LoadError::TooMuch(format!(
                    "{} has more than {MAX_ENTRIES} entries: name the folder of the manifests",
                    folder.display()
                )));
            }
            if !entry.file_name().to_string_lossy().starts_with('.') {
                inside.push((entry.path(), entry.file_type().map_err(read)?));
            }
        }
        inside.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (path, kind) in inside {
            if kind.is_dir() {
                self.inner_folder(&path, depth)?;
            } else {
                self.inner_file(&path, kind);
            }
        }
        if self.files.len() > MAX_FILES {
            return Err(LoadError::TooMuch(format!("more than {MAX_FILES} manifest files")));
        }
        Ok(())
    }

    fn inner_folder(&mut self, path: &Path, depth: usize) -> Result<(), LoadError> {
        if is_run_folder(path) {
            self.skip(path, "made by `agents run`");
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            let path = path.display();
            return Err(LoadError::TooMuch(format!("{path} is nested more than {MAX_DEPTH} folders deep")));
        }
        self.folder(path, depth + 1)
    }

    fn inner_file(&mut self, path: &Path, kind: FileType) {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let wanted = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
        // A linked file is as good as a file (ConfigMaps are mounted so); a linked folder could lead in circles.
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {
                if wanted {
                    self.files.push(path.to_owned());
                }
            }
            Ok(found) if found.is_dir() => self.skip(path, "a link to a folder is not entered"),
            Ok(_) if wanted => self.skip(path, "not a file; it is read when it is named"),
            Err(_) if wanted && kind.is_symlink() => self.skip(path, "a link that leads nowhere"),
            Err(_) if wanted => self.skip(path, "it cannot be looked at"),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Whether `agents run` made this folder for a run.
fn is_run_folder(path: &Path) -> bool {
    fs::read(path.join(RUN_FOLDER_MARKER)).is_ok_and(|found| found.starts_with(RUN_FOLDER_MARK.as_bytes()))
}

/// Whether it has no place in a folder of manifests: a pipe of a shell, a terminal.
fn is_stream(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_char_device() || kind.is_socket()
}

impl Read {
    fn file(&mut self, path: &Path) -> Result<(), LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
        let file = fs::File::open(path).map_err(read)?;
        let kind = file.metadata().map_err(read)?.file_type();
        let bytes = pipes::read_to_end(&file, limit).map_err(read)?;
        let folder = if is_stream(kind) { fs::canonicalize(".") } else { folder_of(path) };
        self.bytes(&path.display().to_string(), &folder.map_err(read)?, &bytes)
    }

    fn whole_file(&mut self, file: &str, problem: String, place: Place) {
        self.faults.push(ManifestFault {
            file: file.to_owned(),
            document: None,
            place,
            field: String::new(),
            rule: Rule::Syntax,
            problem,
            hint: None,
        });
    }

    fn bytes(&mut self, file: &str, folder: &Path, bytes: &[u8]) -> Result<(), LoadError> {
        if bytes.len() as u64 > MAX_FILE_BYTES {
            self.whole_file(file, format!("is larger than {MAX_FILE_BYTES} bytes"), Place::default());
            return Ok(());
        }
        let documents = text::decode(bytes).and_then(|text| text::documents(&text));
        let documents: Vec<Node> = match documents {
            Ok(documents) => documents,
            Err(text::Unreadable { problem, place }) => {
                self.whole_file(file, problem, place);
                return Ok(());
            }
        };
        for (n, node) in documents.into_iter().enumerate() {
            if node.value == Tree::Null {
                continue;
            }
            let document =
                Document { file: file.to_owned(), folder: folder.to_owned(), number: n + 1, path: String::new(), node };
            let (items, faults) = list::items(document);
            self.faults.extend(faults);
            for item in items {
                if self.documents.len() >= MAX_DOCUMENTS {
                    return Err(LoadError::TooMuch(format!("more than {MAX_DOCUMENTS} manifest documents")));
                }
                self.documents.push(item);
            }
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> io::Result<PathBuf> {
    Ok(fs::canonicalize(path)?.parent().map_or_else(PathBuf::new, Path::to_owned))
}
