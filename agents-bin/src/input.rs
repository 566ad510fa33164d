//! Where the commands that read manifests read them from.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use agents_runtime::manifest::{MAX_FILE_BYTES, Source};
use anyhow::{Context as _, Result, anyhow};

/// The source that `-f PATH` means; `-` is standard input.
pub(crate) fn source(path: PathBuf, here: &Path) -> Result<Source> {
    if path.as_os_str() != "-" {
        return Ok(Source::Path(path));
    }
    let mut bytes = Vec::new();
    io::stdin().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    let text = String::from_utf8(bytes).map_err(|_| anyhow!("standard input is not UTF-8 text"))?;
    Ok(Source::Text { name: "standard input".to_owned(), folder: here.to_owned(), text })
}
