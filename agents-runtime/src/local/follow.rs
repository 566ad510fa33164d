//! Follows one run: its output as it is printed, and its state for the driver to look at.
//!
//! Output is read from the file the runner prints into, so it goes on in the next engine where this one died. What was
//! read of a very long output is given back to the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agents_core::{
    api::{AgentRun, Resource},
    decide::agent_run::is_finished,
    plan::runner_spec::{LOG_PATH, WORKSPACE},
    runtime::{Observation, RuntimeRef},
};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek},
};
use tokio::sync::mpsc;

use super::{Event, world::LocalWorld};
use crate::manifest::ObjectName;
use crate::{
    adapter::RuntimeAdapter,
    driver::Requests,
    process::{Places, ProcessAdapter},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest piece of a line that is passed on as one.
const MAX_LINE: usize = 16 * 1024;
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Output that was read is given back to the disk in pieces of this many bytes.
const GIVE_BACK: u64 = 64 * 1024 * 1024;

/// What the driver has to look at again.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Waiting,
    Running,
    Stopping,
    Finished,
}

impl Seen {
    fn of(observation: &Observation) -> Self {
        match observation {
            Observation::Lost => Self::Nothing,
            Observation::Pending { .. } => Self::Waiting,
            Observation::Running { .. } => Self::Running,
            Observation::Stopping => Self::Stopping,
            Observation::Finished(_) => Self::Finished,
        }
    }
}

/// Follows the run `name` until it has ended, or for ever when it never does.
pub(super) async fn follow(
    world: Arc<LocalWorld>,
    name: ObjectName,
    requests: Requests<ObjectName>,
    events: mpsc::Sender<Event>,
) {
    let Some(place) = world.place(&name) else { return };
    let adapter = place.adapter.clone();
    let mut current: Option<(RuntimeRef, Output)> = None;
    let mut last: Option<(RuntimeRef, Seen)> = None;
    loop {
        let Some(run) = world.run(&name) else { return };
        let ended = is_finished(&run);
        if let Some((_, output)) = &mut current {
            output.pass_on(&name.1, &events, ended).await;
        }
        if ended {
            finish(&world, &name, &run, current.map(|(reference, _)| reference));
            return;
        }
        let reference = world.reference(&run);
        match adapter.status(&reference).await {
            Ok(observation) => {
                let seen = Seen::of(&observation);
                if seen != Seen::Nothing && current.as_ref().is_none_or(|(known, _)| *known != reference) {
                    if let Some((_, mut before)) = current.take() {
                        before.pass_on(&name.1, &events, true).await;
                    }
                    current = Some((reference.clone(), Output::new(&adapter, &reference)));
                }
                let now = Some((reference, seen));
                // The start of an attempt is the driver's own doing; everything else it has to be told.
                if last != now && now.as_ref().is_some_and(|(_, seen)| *seen != Seen::Nothing) {
                    requests.ask(name.clone());
                }
                last = now;
            }
            Err(error) => {
                tracing::debug!(run = name.1, error = &error as &dyn std::error::Error, "cannot look at the attempt");
            }
        }
        tokio::select! {
            () = world.changed.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Puts what the run left where people look for it.
fn finish(world: &LocalWorld, name: &ObjectName, run: &Resource<AgentRun>, last: Option<RuntimeRef>) {
    let (Some(place), Some(last)) = (world.place(name), last) else { return };
    let Places { workspace, .. } = place.adapter.places(&last);
    let log = workspace.join(LOG_PATH.strip_prefix(WORKSPACE).unwrap_or(LOG_PATH).trim_start_matches('/'));
    if let Err(error) = place.folder.present(run, &workspace, &log) {
        tracing::warn!(
            run = name.1,
            error = &error as &dyn std::error::Error,
            "cannot put log and outputs into the run's folder"
        );
    }
}

/// The output of one attempt.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: Option<File>,
    read: u64,
    given_back: u64,
    line: Vec<u8>,
}

impl Output {
    fn new(adapter: &ProcessAdapter, reference: &RuntimeRef) -> Self {
        Self { path: adapter.places(reference).output, file: None, read: 0, given_back: 0, line: Vec::new() }
    }

    /// Passes on everything printed since the last time; `to_the_end` also a last line without an end.
    async fn pass_on(&mut self, run: &str, events: &mpsc::Sender<Event>, to_the_end: bool) {
        loop {
            match self.next() {
                Ok(lines) if lines.is_empty() => break,
                Ok(lines) => {
                    let _ = events.send(Event::Output { run: run.to_owned(), lines }).await;
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the output");
                    break;
                }
            }
        }
        if to_the_end && !self.line.is_empty() {
            let lines = vec![text(&std::mem::take(&mut self.line))];
            let _ = events.send(Event::Output { run: run.to_owned(), lines }).await;
        }
    }

    /// The next whole lines; none when there is nothing new.
    fn next(&mut self) -> io::Result<Vec<String>> {
        if self.file.is_none() {
            self.file = open(&self.path)?;
        }
        let Some(file) = &mut self.file else { return Ok(vec![]) };
        if self.read == 0 {
            // An engine before this one may have given the beginning back.
            self.read = first_data(file)?;
            self.given_back = self.read;
            file.seek(SeekFrom::Start(self.read))?;
        }
        let mut lines = Vec::new();
        let mut chunk = vec![0; CHUNK];
        while lines.is_empty() {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            self.read += count as u64;
            for byte in &chunk[..count] {
                if *byte == b'\n' || self.line.len() >= MAX_LINE {
                    lines.push(text(&std::mem::take(&mut self.line)));
                }
                if *byte != b'\n' {
                    self.line.push(*byte);
                }
            }
        }
        if self.read - self.given_back > GIVE_BACK {
            give_back(&self.path, self.read);
            self.given_back = self.read;
        }
        Ok(lines)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn first_data(file: &File) -> io::Result<u64> {
    match lseek(file, 0, Whence::SeekData) {
        Ok(start) => Ok(u64::try_from(start).unwrap_or(0)),
        // An empty file has no data, and some file systems do not know holes.
        Err(nix::errno::Errno::ENXIO | nix::errno::Errno::EINVAL) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Makes a hole of everything before `end`: the runner appends, so the file only looks long. The runner's own log keeps
/// the tail.
fn give_back(path: &Path, end: u64) {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let done = OpenOptions::new().write(true).open(path).and_then(|file| {
        let length = i64::try_from(end).map_err(io::Error::other)?;
        fallocate(file, flags, 0, length).map_err(io::Error::from)
    });
    if let Err(error) = done {
        tracing::debug!(error = &error as &dyn std::error::Error, "this file system cannot give read output back");
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::MetadataExt};

    use super::*;

    fn output(path: &Path) -> Output {
        Output { path: path.to_owned(), file: None, read: 0, given_back: 0, line: Vec::new() }
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_one_at_the_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        let (sender, mut receiver) = mpsc::channel(16);
        let mut output = output(&path);
        output.pass_on("r", &sender, false).await;
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for (text, to_the_end, wanted) in [
            ("one\r\ntw", false, vec!["one"]),
            ("o\n\nthr", false, vec!["two", ""]),
            ("", false, vec![]),
            ("ee \u{fffd}", true, vec!["three \u{fffd}"]),
        ] {
            file.write_all(text.as_bytes()).unwrap();
            output.pass_on("r", &sender, to_the_end).await;
            let mut lines = Vec::new();
            while let Ok(Event::Output { lines: more, .. }) = receiver.try_recv() {
                lines.extend(more);
            }
            assert_eq!(lines, wanted);
        }
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        std::fs::write(&path, vec![b'x'; MAX_LINE * 2 + 10]).unwrap();
        let mut output = output(&path);
        let pieces = output.next().unwrap();
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, MAX_LINE]);
        assert_eq!(output.line.len(), 10);
    }

    #[test]
    fn what_was_read_of_a_long_output_takes_no_room_and_the_next_engine_goes_on_after_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let megabyte = line.repeat(1024);
        let mut first = output(&path);
        let mut lines = 0;
        for _ in 0..=(GIVE_BACK >> 20) {
            file.write_all(&megabyte).unwrap();
            lines += first.next().unwrap().len();
        }
        loop {
            match first.next().unwrap().len() {
                0 => break,
                more => lines += more,
            }
        }
        assert_eq!(lines as u64, (GIVE_BACK >> 10) + 1024);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 4 << 20);
        file.write_all(b"after\n").unwrap();
        let mut second = output(&path);
        let mut last = String::new();
        while let Some(line) = second.next().unwrap().pop() {
            assert!(!line.contains('\0'));
            last = line;
        }
        assert_eq!(last, "after");
    }
}
