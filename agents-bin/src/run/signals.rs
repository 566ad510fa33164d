//! What Ctrl-C and TERM do to `agents run`.
//!
//! The first cancels, the second ends everything and, whatever holds it up, the command; the third ends the command at
//! once. What still runs then belongs to its folder and is continued by the next command. The thread that listens does
//! nothing else, so that neither a disk nor a reader that does not answer keeps a signal from being heard.

use std::{fs, io, process, thread, time::Duration};

use agents_runtime::local::Handle;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

use super::screen::Screen;
use crate::exit;

/// How long the command may still take after the second signal.
const LAST: Duration = Duration::from_secs(10);
/// How long the last word may wait for its reader.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Listens until the process ends.
///
/// # Errors
/// Nothing can be listened to.
pub(super) fn listen(handle: Handle, screen: Screen) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let ignored = ignored();
    let hears = |kind: SignalKind| {
        // `nohup` and a shell's `&` hand down what is not for us.
        let is_ours =
            ignored & 1_u64.checked_shl(u32::try_from(kind.as_raw_value()).unwrap_or(0) - 1).unwrap_or(0) == 0;
        is_ours.then(|| signal(kind)).transpose()
    };
    let (mut interrupt, mut terminate) = (hears(SignalKind::interrupt())?, hears(SignalKind::terminate())?);
    drop(guard);
    thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            heard(&mut interrupt, &mut terminate).await;
            say(&screen, "cancelling; once more ends everything at once");
            aside({
                let handle = handle.clone();
                move || handle.cancel()
            });
            heard(&mut interrupt, &mut terminate).await;
            say(&screen, "ending everything at once");
            aside(move || handle.force());
            if timeout(LAST, heard(&mut interrupt, &mut terminate)).await.is_err() {
                let last = LAST.as_secs();
                say(
                    &screen,
                    &format!("not everything ended in {last} s; what is left is continued by the next command"),
                );
                tokio::time::sleep(LAST_WORD).await;
            }
            process::exit(i32::from(exit::CANCELLED));
        });
    })?;
    Ok(())
}

async fn heard(interrupt: &mut Option<Signal>, terminate: &mut Option<Signal>) {
    async fn one(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
    tokio::select! {
        () = one(interrupt) => {}
        () = one(terminate) => {}
    }
}

fn say(screen: &Screen, text: &str) {
    let (screen, text) = (screen.clone(), text.to_owned());
    aside(move || screen.say(&text));
}

/// Does what may wait where it holds up nothing.
fn aside(work: impl FnOnce() + Send + 'static) {
    // Without another thread there is nobody to do it; the next signal is heard nevertheless.
    let _ = thread::Builder::new().spawn(work);
}

/// The signals that this process was started with to ignore, as the bits of `/proc`.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).unwrap_or(0)
}
