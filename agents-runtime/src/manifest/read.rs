//! From paths to documents.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{
    Document, EXTENSIONS, LoadError, MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_FILES, ManifestFault, Rule, Source,
    tree::{Node, Place, Tree},
};

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
}

/// Reads every document of `sources`; empty ones are left out.
///
/// # Errors
/// A file that cannot be read, too much, or nothing.
pub fn read(sources: &[Source]) -> Result<Read, LoadError> {
    let mut all = Read::default();
    for source in sources {
        match source {
            Source::Path(path) => {
                let mut files = Vec::new();
                let mut entries = 0;
                find(path, 0, &mut entries, &mut files)?;
                for file in files {
                    all.file(&file)?;
                }
            }
            Source::Text { name, folder, text } => all.text(name, folder, text)?,
        }
    }
    if all.documents.is_empty() && all.faults.is_empty() {
        return Err(LoadError::Nothing);
    }
    Ok(all)
}

fn find(path: &Path, depth: usize, entries: &mut usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(read)?;
    if !found.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?;
        *entries += 1;
        if *entries > MAX_ENTRIES {
            return Err(LoadError::TooMuch(format!(
                "{} has more than {MAX_ENTRIES} entries: name the folder of the manifests",
                path.display()
            )));
        }
        let kind = entry.file_type().map_err(read)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let wanted = path
            .extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|extension| EXTENSIONS.contains(&extension));
        // A linked file is as good as a file (ConfigMaps are mounted so); a linked folder could lead in circles.
        if !hidden && (kind.is_dir() || (wanted && fs::metadata(&path).is_ok_and(|found| found.is_file()))) {
            inside.push(path);
        }
    }
    inside.sort();
    for inner in inside {
        if depth >= MAX_DEPTH {
            return Err(LoadError::TooMuch(format!(
                "{} is nested more than {MAX_DEPTH} folders deep",
                inner.display()
            )));
        }
        find(&inner, depth + 1, entries, files)?;
    }
    if files.len() > MAX_FILES {
        return Err(LoadError::TooMuch(format!("more than {MAX_FILES} manifest files")));
    }
    Ok(())
}

impl Read {
    fn file(&mut self, path: &Path) -> Result<(), LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(read)?;
        let name = path.display().to_string();
        let folder = fs::canonicalize(path).map_err(read)?.parent().map_or_else(PathBuf::new, Path::to_owned);
        if let Ok(text) = String::from_utf8(bytes) {
            self.text(&name, &folder, &text)?;
        } else {
            self.whole_file(&name, "is not UTF-8 text".to_owned(), Place::default());
        }
        Ok(())
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

    fn text(&mut self, file: &str, folder: &Path, text: &str) -> Result<(), LoadError> {
        if text.len() as u64 > MAX_FILE_BYTES {
            self.whole_file(file, format!("is larger than {MAX_FILE_BYTES} bytes"), Place::default());
            return Ok(());
        }
        let documents: Vec<Node> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            Err(error) => {
                let place = error.location().map(|place| Place { line: place.line(), column: place.column() });
                let problem = error.without_snippet().to_string();
                self.whole_file(file, format!("cannot be read: {problem}"), place.unwrap_or_default());
                return Ok(());
            }
        };
        for (n, node) in documents.into_iter().enumerate() {
            if node.value == Tree::Null {
                continue;
            }
            if self.documents.len() >= MAX_DOCUMENTS {
                return Err(LoadError::TooMuch(format!("more than {MAX_DOCUMENTS} manifest documents")));
            }
            let document = Document { file: file.to_owned(), folder: folder.to_owned(), number: n + 1, node };
            if let Tree::Map(_) = &document.node.value {
                self.documents.push(document);
            } else {
                let problem = format!("is {}; an object is wanted", document.node.value.describe());
                self.faults.push(document.fault(document.node.place, "", Rule::Document, problem));
            }
        }
        Ok(())
    }
}
