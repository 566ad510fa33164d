//! Where the commands that read manifests read them from.

use std::{
    io,
    path::{Path, PathBuf},
};

use agents_runtime::{
    manifest::{MAX_FILE_BYTES, Source},
    pipes,
};
use anyhow::{Context as _, Result, bail};

/// The sources that `-f PATH …` mean; `-` is standard input.
pub(crate) fn sources(paths: Vec<PathBuf>, here: &Path) -> Result<Vec<Source>> {
    if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        bail!("-f - is given twice, and standard input can be read once");
    }
    paths.into_iter().map(|path| source(path, here)).collect()
}

fn source(path: PathBuf, here: &Path) -> Result<Source> {
    let text = path.to_string_lossy();
    if text.starts_with("http://") || text.starts_with("https://") {
        bail!("{text} is an address, and nothing is fetched here: `curl -fsSL {text} | agents … -f -` reads it");
    }
    if path.as_os_str() != "-" {
        return Ok(Source::Path(path));
    }
    let limit = usize::try_from(MAX_FILE_BYTES).unwrap_or(usize::MAX);
    let bytes = pipes::read_to_end(io::stdin(), limit).context("cannot read standard input")?;
    Ok(Source::Bytes { name: "standard input".to_owned(), folder: here.to_owned(), bytes })
}
