//! Reads what the provider prints, to the end, whatever it prints and whoever stops listening.
//!
//! One thread per stream: bytes → usage parser → redaction → whole lines → log file and the runner's own stream. What
//! one thread holds in memory is bounded. The log comes first, so that a listener that stalls does not keep anything
//! out of it. A listener that is gone is not an error.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::write,
};

use super::{
    lines::Lines,
    log::{Log, has_no_room},
    redact::{Redactor, Secrets},
    usage::{Found, UsageReader},
};

/// How long an unfinished line waits for its end.
const PATIENCE_MS: u16 = 250;
/// Bytes per read.
const CHUNK: usize = 64 * 1024;

/// The log of both streams.
#[derive(Debug)]
struct Shared {
    log: Log,
    /// The stream whose line the log's last line is, while it has no end.
    unfinished: Option<Stream>,
    /// What our own streams did not take although somebody listens, in bytes, and why.
    refused: Option<(u64, Errno)>,
}

impl Shared {
    /// Appends a block. A line that the other stream left unfinished ends before it, so that no line is of both.
    fn write(&mut self, stream: Stream, block: &[u8]) {
        if self.unfinished.is_some_and(|unfinished| unfinished != stream) {
            self.log.write(b"\n");
        }
        self.log.write(block);
        self.unfinished = (!block.ends_with(b"\n")).then_some(stream);
    }
}

/// One of the provider's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The threads that read one provider.
#[derive(Debug)]
pub(super) struct Streams {
    done: mpsc::Receiver<Option<Found>>,
    running: usize,
    log: Arc<Mutex<Shared>>,
    abandon: Arc<AtomicBool>,
    found: Found,
}

fn lock(log: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Streams {
    /// Starts to read both streams.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(
        out: OwnedFd,
        err: OwnedFd,
        log: Log,
        secrets: &Arc<Secrets>,
        usage: Option<UsageReader>,
    ) -> std::io::Result<Self> {
        let (report, done) = mpsc::channel();
        let log = Arc::new(Mutex::new(Shared { log, unfinished: None, refused: None }));
        let abandon = Arc::new(AtomicBool::new(false));
        for (stream, source, usage) in [(Stream::Out, out, usage), (Stream::Err, err, None)] {
            let (log, abandon, secrets, report) = (log.clone(), abandon.clone(), secrets.clone(), report.clone());
            thread::Builder::new().stack_size(256 * 1024).spawn(move || {
                let found = pump(source, stream, &log, &secrets, &abandon, usage);
                // Nobody listens any more when the streams were abandoned.
                let _ = report.send(found);
            })?;
        }
        Ok(Self { done, running: 2, log, abandon, found: Found::default() })
    }

    /// Waits for both ends, at most for `patience`; then finishes the log. Returns what was read and what went wrong.
    pub(super) fn finish(mut self, patience: Duration) -> (Found, Vec<String>) {
        let until = Instant::now() + patience;
        while self.running > 0 {
            match self.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(found) => {
                    self.running -= 1;
                    if let Some(found) = found {
                        self.found = found;
                    }
                }
                Err(_) if !self.abandon.swap(true, Ordering::Relaxed) => {
                    // A thread that only waits for input notices within its patience; one that waits for a listener
                    // that stalls never does, and ends with the process.
                    let last = Duration::from_millis(u64::from(PATIENCE_MS) * 4);
                    while let Ok(found) = self.done.recv_timeout(last) {
                        self.running -= 1;
                        self.found = found.unwrap_or(self.found);
                    }
                    break;
                }
                Err(_) => break,
            }
        }
        let mut shared = lock(&self.log);
        let refused =
            shared.refused.map(|(bytes, error)| format!("{bytes} bytes of the output were not shown: {error}"));
        let problems = shared.log.finish().into_iter().chain(refused).collect();
        drop(shared);
        (self.found, problems)
    }
}

fn pump(
    source: OwnedFd,
    stream: Stream,
    log: &Mutex<Shared>,
    secrets: &Secrets,
    abandon: &AtomicBool,
    mut usage: Option<UsageReader>,
) -> Option<Found> {
    let mut source = File::from(source);
    let mut chunk = vec![0; CHUNK];
    let mut clean = Vec::with_capacity(CHUNK);
    let mut redactor = Redactor::new(secrets);
    let mut lines = Lines::default();
    let mut listening = true;
    let mut deliver = |block: &[u8]| {
        lock(log).write(stream, block);
        if !listening {
            return;
        }
        match pass_on(stream, block, abandon) {
            Passed::Whole => {}
            Passed::Nowhere => listening = false,
            Passed::AllBut(bytes, error) => {
                let mut shared = lock(log);
                let before = shared.refused.map_or(0, |(before, _)| before);
                shared.refused = Some((before + bytes, error));
            }
        }
    };
    while !abandon.load(Ordering::Relaxed) {
        match poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE_MS)) {
            Ok(0) => {
                lines.flush(&mut deliver);
                continue;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break,
        }
        let length = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        if let Some(usage) = &mut usage {
            usage.push(&chunk[..length]);
        }
        clean.clear();
        redactor.push(&chunk[..length], &mut clean);
        lines.push(&clean, &mut deliver);
    }
    clean.clear();
    redactor.finish(&mut clean);
    lines.push(&clean, &mut deliver);
    lines.finish(&mut deliver);
    usage.map(UsageReader::finish)
}

/// What became of a block on the runner's own stream.
enum Passed {
    Whole,
    /// Nobody listens there any more.
    Nowhere,
    /// The stream is a file that has no room for so many bytes.
    AllBut(u64, Errno),
}

fn pass_on(stream: Stream, mut block: &[u8], abandon: &AtomicBool) -> Passed {
    let (out, err) = (std::io::stdout(), std::io::stderr());
    let target = match stream {
        Stream::Out => out.as_fd(),
        Stream::Err => err.as_fd(),
    };
    while !block.is_empty() {
        match write(target, block) {
            Ok(0) => return Passed::Nowhere,
            Ok(length) => block = &block[length..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // Somebody else made the stream non-blocking.
                let _ = poll(&mut [PollFd::new(target, PollFlags::POLLOUT)], PollTimeout::from(PATIENCE_MS));
                if abandon.load(Ordering::Relaxed) {
                    return Passed::Nowhere;
                }
            }
            Err(error) if has_no_room(&error.into()) => return Passed::AllBut(block.len() as u64, error),
            Err(_) => return Passed::Nowhere,
        }
    }
    Passed::Whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::folder::open_trusted;

    #[test]
    fn no_line_of_the_log_is_of_both_streams() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(open_trusted(folder.path()).unwrap(), "log.txt", 4096).unwrap();
        let mut shared = Shared { log, unfinished: None, refused: None };
        for (stream, block) in [
            (Stream::Out, "asks "),
            (Stream::Out, "on> "),
            (Stream::Err, "warns\n"),
            (Stream::Out, "answer\n"),
            (Stream::Err, "left"),
            (Stream::Out, "done\n"),
        ] {
            shared.write(stream, block.as_bytes());
        }
        assert_eq!(shared.log.finish(), None);
        let log = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
        assert_eq!(log, "asks on> \nwarns\nanswer\nleft\ndone\n");
    }
}
