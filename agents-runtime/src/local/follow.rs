//! Follows one run: its output as it is printed, and its state for the driver to look at.
//!
//! The two do not wait for each other: who reads the output slowly holds up nothing but the output. It is read from the
//! file the runner prints into, so it goes on in the next engine where this one died; of a line without an end only the
//! place is kept. What was read of a very long output is given back to the disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use agents_core::{
    api::{AgentRun, Resource},
    decide::agent_run::is_finished,
    id::{Id, Key},
    plan::runner_spec::{LOG_PATH, WORKSPACE},
    runtime::{Observation, RuntimeRef},
};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    Event,
    objects::run_id,
    stage::Stage,
    world::{LocalWorld, last_of},
};
use crate::{
    adapter::RuntimeAdapter,
    driver::Requests,
    lines::{CONTINUED, MAX_LINE, cut_at},
    process::{Places, ProcessAdapter},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Longest line that is passed on as one: the runner's longest, which may say that it goes on.
const LONGEST: usize = MAX_LINE + CONTINUED.len();
/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Output that was read is given back to the disk in pieces of this many bytes.
const GIVE_BACK: u64 = 64 * 1024 * 1024;
/// How often the end of an output is tried to be read, and what a run left to be put in place.
const TRIES: u32 = 40;

/// What the driver has to look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    fn is_live(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Stopping => true,
            Self::Nothing | Self::Finished => false,
        }
    }
}

/// Follows the run `name` until it has ended or was given up, or for ever when it never does.
pub(super) async fn follow(world: Arc<LocalWorld>, name: Key, requests: Requests<Id>, stage: Stage) {
    let (attempts, begun) = mpsc::unbounded_channel();
    let Some(adapter) = world.place(&name).map(|place| place.adapter.clone()) else { return };
    tokio::join!(look(&world, &name, &requests, attempts), show(&adapter, &name.name, &stage, begun));
}

/// Looks at the run's state, and tells of each attempt that can be seen.
async fn look(world: &LocalWorld, name: &Key, requests: &Requests<Id>, attempts: mpsc::UnboundedSender<RuntimeRef>) {
    let Some(place) = world.place(name) else { return };
    let mut current: Option<RuntimeRef> = None;
    let mut last: Option<(RuntimeRef, Seen)> = None;
    loop {
        let Some(run) = world.run(name) else { return };
        if is_finished(&run) || world.is_given_up(name) {
            // The record may be ahead of what was seen here: of a run that ended under an engine before, nothing was.
            let seen = current.as_ref().map(|seen| seen.name.clone());
            let last = last_of(&run).or(current);
            if let Some(unseen) = last.as_ref().filter(|last| Some(&last.name) != seen.as_ref()) {
                let _ = attempts.send(unseen.clone());
            }
            drop(attempts);
            finish(world, name, &run, last).await;
            return;
        }
        let reference = world.reference(&run);
        match place.adapter.status(&reference).await {
            Ok(observation) => {
                let seen = Seen::of(&observation);
                world.seen(name, seen.is_live());
                if seen != Seen::Nothing && current.as_ref() != Some(&reference) {
                    // Nobody listens to the output any more when the engine ends.
                    let _ = attempts.send(reference.clone());
                    current = Some(reference.clone());
                }
                let now = Some((reference, seen));
                // The start of an attempt is the driver's own doing; everything else it has to be told.
                // That nothing is left of what was there is news as well.
                if last != now && (seen != Seen::Nothing || last.is_some()) {
                    requests.ask(run_id(name));
                }
                last = now;
            }
            Err(error) => {
                tracing::debug!(
                    run = name.name,
                    error = &error as &dyn std::error::Error,
                    "cannot look at the attempt"
                );
            }
        }
        tokio::select! {
            () = world.changed.notified() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Passes on the output of one attempt after the other, each to its end.
async fn show(adapter: &ProcessAdapter, run: &str, stage: &Stage, mut attempts: mpsc::UnboundedReceiver<RuntimeRef>) {
    while let Some(reference) = attempts.recv().await {
        let mut output = Output::new(adapter.places(&reference).output);
        let mut tries = 0;
        loop {
            // Asked before the output is read: an attempt that had ended by then prints no more.
            let has_ended = attempts.is_closed() || !attempts.is_empty();
            match output.pass_on(run, stage, has_ended).await {
                Ok(()) if has_ended => break,
                Ok(()) => tries = 0,
                Err(error) if has_ended && tries >= TRIES => {
                    stage.tell(Event::Remark(format!("{run}: not all of its output could be read: {error}")));
                    break;
                }
                Err(error) => {
                    tracing::debug!(run, error = &error as &dyn std::error::Error, "cannot read the output");
                    tries += 1;
                }
            }
            sleep(LOOK).await;
        }
    }
}

/// Puts what the run left where people look for it.
async fn finish(world: &LocalWorld, name: &Key, run: &Resource<AgentRun>, last: Option<RuntimeRef>) {
    let (Some(place), Some(last)) = (world.place(name), last) else { return };
    let Places { workspace, .. } = place.adapter.places(&last);
    let log = workspace.join(LOG_PATH.strip_prefix(WORKSPACE).unwrap_or(LOG_PATH).trim_start_matches('/'));
    let mut tries = 0;
    while let Err(error) = place.folder.present(run, &workspace, &log) {
        if tries >= TRIES || world.is_given_up(name) {
            let folder = place.folder.path().display();
            let log = log.display();
            world.tell(Event::Remark(format!(
                "{}: its log and outputs could not be put into {folder}: {error}; the log is {log}",
                name.name
            )));
            return;
        }
        tries += 1;
        sleep(LOOK).await;
    }
}

/// The output of one attempt. Everything before `passed` is passed on; from there to `searched` no line ends.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    begun: bool,
    passed: u64,
    searched: u64,
    given_back: u64,
}

impl Output {
    fn new(path: PathBuf) -> Self {
        Self { path, begun: false, passed: 0, searched: 0, given_back: 0 }
    }

    /// Passes on everything printed since the last time; `to_the_end` also a last line without an end.
    async fn pass_on(&mut self, run: &str, stage: &Stage, to_the_end: bool) -> io::Result<()> {
        while let Some(length) = self.find(to_the_end)? {
            let room = stage.room(length).await;
            let lines = self.take(length)?;
            stage.tell(Event::Output { run: run.to_owned(), lines, room });
        }
        Ok(())
    }

    /// The length of what can be passed on next: whole lines, a piece of a very long one, or at the end the rest.
    fn find(&mut self, to_the_end: bool) -> io::Result<Option<usize>> {
        // No descriptor is held between two looks: there may be more runs than descriptors.
        match fs::metadata(&self.path) {
            Ok(found) if self.begun && found.len() <= self.searched && !to_the_end => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = File::open(&self.path)?;
        if !self.begun {
            // An engine before this one may have given the beginning back.
            self.passed = first_data(&file)?;
            (self.searched, self.given_back, self.begun) = (self.passed, self.passed, true);
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let pending = usize::try_from(self.searched - self.passed).unwrap_or(usize::MAX);
            if pending > LONGEST {
                return Ok(Some(LONGEST + 1));
            }
            let count = file.read_at(&mut chunk, self.searched)?;
            if count == 0 {
                return Ok(Some(pending).filter(|pending| to_the_end && *pending > 0));
            }
            if let Some(at) = memchr::memrchr(b'\n', &chunk[..count]) {
                self.searched += at as u64 + 1;
                return Ok(Some(pending + at + 1));
            }
            self.searched += count as u64;
        }
    }

    /// The lines of the next `length` bytes.
    fn take(&mut self, length: usize) -> io::Result<Vec<String>> {
        let mut bytes = vec![0; length];
        File::open(&self.path)?.read_exact_at(&mut bytes, self.passed)?;
        let mut rest = bytes.as_slice();
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let length = end.unwrap_or(rest.len());
            if length <= LONGEST {
                lines.push(text(&rest[..length]));
                rest = rest.get(length + 1..).unwrap_or_default();
                continue;
            }
            let (piece, after) = rest.split_at(cut_at(rest, LONGEST));
            lines.push(format!("{}{CONTINUED}", text(piece)));
            rest = after;
            if end.is_none() {
                break;
            }
        }
        self.passed += (length - rest.len()) as u64;
        if self.passed - self.given_back > GIVE_BACK {
            give_back(&self.path, self.passed);
            self.given_back = self.passed;
        }
        Ok(lines)
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

    /// What is passed on now.
    async fn passed(output: &mut Output, to_the_end: bool) -> Vec<String> {
        let (stage, mut events) = Stage::new();
        output.pass_on("r", &stage, to_the_end).await.unwrap();
        drop(stage);
        let mut lines = Vec::new();
        while let Some(Event::Output { lines: more, .. }) = events.recv().await {
            lines.extend(more);
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_one_at_the_end() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        let mut output = Output::new(path.clone());
        assert_eq!(passed(&mut output, false).await, Vec::<String>::new());
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for (text, to_the_end, wanted) in [
            ("one\r\ntw", false, vec!["one"]),
            ("o\n\nthr", false, vec!["two", ""]),
            ("", false, vec![]),
            ("ee \u{fffd}", true, vec!["three \u{fffd}"]),
        ] {
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(passed(&mut output, to_the_end).await, wanted);
        }
    }

    #[tokio::test]
    async fn a_line_is_one_up_to_the_runners_longest_and_a_longer_one_is_cut_between_characters() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        let longest = format!("{}{CONTINUED}", "x".repeat(MAX_LINE));
        let longer = format!("x{}", "\u{20ac}".repeat(MAX_LINE));
        fs::write(&path, format!("a\n{longest}\nb\n{longer}\nc\n{longer}")).unwrap();
        let mut lines = passed(&mut Output::new(path), true).await;
        assert_eq!((lines[0].as_str(), lines[1] == longest, lines[2].as_str()), ("a", true, "b"));
        let mut rest = lines.split_off(3);
        let c = rest.iter().position(|line| line == "c").unwrap();
        let last = rest.split_off(c + 1);
        rest.pop();
        for pieces in [rest, last] {
            assert!(pieces.len() == 3 && pieces.iter().all(|piece| piece.len() <= LONGEST + CONTINUED.len()));
            assert!(pieces[..2].iter().all(|piece| piece.ends_with(CONTINUED)));
            assert!(pieces.concat().replace(CONTINUED, "") == longer);
        }
    }

    #[tokio::test]
    async fn what_is_not_shown_yet_takes_no_more_than_its_room() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        fs::write(&path, "0123456789abcde\n".repeat(1 << 20)).unwrap();
        let (stage, mut events) = Stage::new();
        let reading = tokio::spawn(async move { Output::new(path).pass_on("r", &stage, true).await });
        let (mut waiting, mut total) = (Vec::new(), 0);
        // Takes everything there is, and lets go of it only when nothing more comes.
        loop {
            match tokio::time::timeout(Duration::from_millis(200), events.recv()).await {
                Ok(Some(Event::Output { lines, room, .. })) => waiting.push((lines, room)),
                Ok(Some(_)) => {}
                ended => {
                    let held: usize = waiting.drain(..).flat_map(|(lines, _)| lines).map(|line| line.len() + 1).sum();
                    assert!(held <= super::super::stage::BUDGET, "{held}");
                    total += held;
                    if ended.is_ok() {
                        break;
                    }
                }
            }
        }
        reading.await.unwrap().unwrap();
        assert_eq!(total, 16 << 20);
    }

    #[tokio::test]
    async fn what_was_read_of_a_long_output_takes_no_room_and_the_next_engine_goes_on_after_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("output.log");
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let megabyte = line.repeat(1024);
        let mut first = Output::new(path.clone());
        let mut lines = 0;
        for _ in 0..=(GIVE_BACK >> 20) {
            file.write_all(&megabyte).unwrap();
            while let Some(length) = first.find(false).unwrap() {
                lines += first.take(length).unwrap().len();
            }
        }
        assert_eq!(lines as u64, (GIVE_BACK >> 10) + 1024);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 4 << 20);
        file.write_all(b"after\n").unwrap();
        let lines = passed(&mut Output::new(path), false).await;
        assert!(lines.iter().all(|line| !line.contains('\0')));
        assert_eq!(lines.last().unwrap(), "after");
    }
}
