//! The provider's output on disk: capped, with the tail kept.
//!
//! While the provider runs there are at most two segments, each at most half the cap: the current one at the log's
//! path and the one before it beside it with the ending `.1`. At the end they become one file. Everything is done on
//! descriptors we opened ourselves, so a provider that removes or replaces the file does not change what is kept. A
//! disk without space loses output, never the run.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::renameat,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    deliver::Target,
    folder::{FileError, create_new, is_same},
};
use crate::lines::cut_at;

/// Cap when the spec names none, in bytes.
pub(super) const DEFAULT_CAP: u64 = 64 * 1024 * 1024;
/// Smallest cap, in bytes.
const MIN_CAP: u64 = 4096;
/// Room for the line that says how much was left out.
const MARK_ROOM: u64 = 128;

/// The log of one attempt.
#[derive(Debug)]
pub(super) struct Log {
    folder: OwnedFd,
    name: String,
    half: u64,
    current: Segment,
    previous: Option<Segment>,
    left_out: u64,
    lost: u64,
    problem: Option<io::Error>,
    finished: bool,
    /// Where the file belongs, should its folder not be there at the end.
    place: Option<Target>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    size: u64,
}

impl Log {
    /// Creates the file; what has its name is replaced.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn create(folder: OwnedFd, name: &str, cap: u64) -> Result<Self, FileError> {
        let file = create_new(&folder, name, 0o644)?;
        Ok(Self {
            folder,
            name: name.to_owned(),
            half: (cap.max(MIN_CAP) - MARK_ROOM) / 2,
            current: Segment { file, size: 0 },
            previous: None,
            left_out: 0,
            lost: 0,
            problem: None,
            finished: false,
            place: None,
        })
    }

    /// The same, which at the end makes its folder again when it is not there.
    pub(super) fn restored_in(self, place: Target) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Appends a block; a failure is remembered, not returned.
    pub(super) fn write(&mut self, block: &[u8]) {
        if self.finished {
            return;
        }
        let room = usize::try_from(self.half).unwrap_or(usize::MAX);
        let mut left = block;
        while !left.is_empty() {
            // Segments begin and end between characters, so a tail does too.
            let (part, rest) = left.split_at(cut_at(left, room));
            self.append(part);
            left = rest;
        }
    }

    fn append(&mut self, part: &[u8]) {
        let size = part.len() as u64;
        if self.current.size + size > self.half {
            self.rotate();
        }
        let mut written = self.current.file.write_all(part);
        if written.as_ref().is_err_and(has_no_room) {
            self.problem = self.problem.take().or(written.err());
            self.take_back();
            self.lost += self.make_room();
            written = self.current.file.write_all(part);
        }
        match written {
            Ok(()) => self.current.size += size,
            Err(error) => {
                self.take_back();
                self.lost += size;
                self.problem.get_or_insert(error);
            }
        }
    }

    /// Takes back what a failed write left of a part.
    fn take_back(&mut self) {
        let Segment { file, size } = &mut self.current;
        let _ = file.set_len(*size).and_then(|()| file.seek(SeekFrom::Start(*size)));
    }

    /// Gives the older output up, so that the tail finds a place on a full disk. Returns how much it was.
    fn make_room(&mut self) -> u64 {
        let Some(Segment { file, size }) = self.previous.take() else {
            return self.start_over();
        };
        // It may be open under another name; its space is what we want back.
        let _ = file.set_len(0);
        let _ = unlinkat(&self.folder, self.previous_name().as_str(), UnlinkatFlags::NoRemoveDir);
        self.left_out += size;
        size
    }

    fn start_over(&mut self) -> u64 {
        let size = std::mem::take(&mut self.current.size);
        self.left_out += size;
        if let Err(error) = self.current.file.set_len(0).and_then(|()| self.current.file.rewind()) {
            self.problem.get_or_insert(error);
        }
        size
    }

    fn rotate(&mut self) {
        let older = self.previous_name();
        // A provider that removed the file has nothing to be renamed; our descriptor still holds the content.
        let _ = renameat(&self.folder, self.name.as_str(), &self.folder, older.as_str());
        if let Ok(file) = create_new(&self.folder, &self.name, 0o644) {
            let full = std::mem::replace(&mut self.current, Segment { file, size: 0 });
            let oldest = self.previous.replace(full);
            self.left_out += oldest.map_or(0, |segment| segment.size);
        } else {
            self.start_over();
        }
    }

    fn previous_name(&self) -> String {
        format!("{}.1", self.name)
    }

    /// Puts the file into its final form; returns what went wrong with the log, in one line.
    pub(super) fn finish(&mut self) -> Option<String> {
        self.finished = true;
        // The provider may have removed, moved or closed the folder; where that cannot be mended, the old one is as good.
        if let Some(folder) = self.place.as_ref().and_then(|place| place.folder().ok()) {
            self.folder = folder;
        }
        if (self.previous.is_some() || self.left_out > 0 || !is_same(&self.folder, &self.name, &self.current.file))
            && let Err(error) = self.join()
        {
            self.problem.get_or_insert(error);
        }
        let problem = self.problem.take()?;
        Some(format!("{} bytes of the output are not in the log: {problem}", self.lost))
    }

    fn join(&mut self) -> io::Result<()> {
        let temporary = format!(".{}.{}", self.name, std::process::id());
        let mut whole = create_new(&self.folder, &temporary, 0o644).map_err(io::Error::other)?;
        let copied = (|| {
            if self.left_out > 0 {
                writeln!(whole, "[agent-runner: {} earlier bytes were left out]", self.left_out)?;
            }
            for segment in self.previous.iter_mut().chain([&mut self.current]) {
                segment.file.rewind()?;
                io::copy(&mut segment.file, &mut whole)?;
            }
            whole.flush()?;
            renameat(&self.folder, temporary.as_str(), &self.folder, self.name.as_str())?;
            Ok(())
        })();
        // Whichever of the two is left is of no more use.
        let of_no_use = if copied.is_ok() { self.previous_name() } else { temporary };
        let _ = unlinkat(&self.folder, of_no_use.as_str(), UnlinkatFlags::NoRemoveDir);
        copied
    }
}

/// Whether giving something up could help.
pub(super) fn has_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runner::folder::open_trusted;

    fn log(folder: &tempfile::TempDir, cap: u64) -> Log {
        Log::create(open_trusted(folder.path()).unwrap(), "log.txt", cap).unwrap()
    }

    #[test]
    fn a_provider_that_replaces_the_log_does_not_change_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("victim");
        std::fs::write(&target, "untouched").unwrap();
        let path = folder.path().join("log.txt");
        let mut log = log(&folder, 4096);
        log.write(b"one\n");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        log.write(b"two\n");
        assert_eq!(log.finish(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "untouched");
    }

    #[test]
    fn the_tail_begins_with_a_whole_character() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(&folder, 4096);
        log.write(format!("x{}", "\u{20ac}".repeat(5000)).as_bytes());
        assert_eq!(log.finish(), None);
        let kept = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
        assert!(kept.starts_with("[agent-runner: ") && kept.ends_with('\u{20ac}'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_tail_is_kept_within_the_cap(sizes in proptest::collection::vec(0usize..3000, 0..20)) {
            let folder = tempfile::tempdir().unwrap();
            let mut log = log(&folder, 4096);
            let mut all = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                let block = vec![b'a' + u8::try_from(n).unwrap(); *size];
                log.write(&block);
                all.extend(block);
            }
            prop_assert_eq!(log.finish(), None);
            let kept = std::fs::read(folder.path().join("log.txt")).unwrap();
            prop_assert!(kept.len() <= 4096);
            let entries = std::fs::read_dir(folder.path()).unwrap().count();
            prop_assert_eq!(entries, 1);
            let body = match kept.strip_prefix(b"[") {
                Some(rest) => &rest[rest.iter().position(|b| *b == b'\n').unwrap() + 1..],
                None => &kept[..],
            };
            prop_assert!(all.ends_with(body));
            prop_assert!(body.len() >= all.len().min(1984 / 2), "{} of {}", body.len(), all.len());
            prop_assert!(body.len() == all.len() || kept.starts_with(b"[agent-runner: "));
        }
    }
}
