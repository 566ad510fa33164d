//! What people see while runs run: output lines, changes of state, a spinner on a terminal. Writes to the terminal and
//! decides nothing.

use std::{
    collections::BTreeMap,
    env,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::api::{AgentRunStatus, agent_run::Phase};
use agents_runtime::local::Event;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc::Receiver;

use super::Output;

/// Colours of the runs' names, in turn: cyan, yellow, green, magenta, blue.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

/// The screen; clones show the same one.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// Output goes to standard error when standard output is for machines.
    to_stderr: bool,
    colours: bool,
    several: bool,
    spinner: Option<ProgressBar>,
    shown: Arc<Mutex<BTreeMap<String, Shown>>>,
}

/// What was said of a run last.
#[derive(Debug, Clone, Default)]
struct Shown {
    colour: u8,
    phase: Option<Phase>,
    said: String,
}

/// Whether text for this stream may be coloured.
fn coloured(terminal: bool) -> bool {
    terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints an error with its causes and a hint.
pub(crate) fn explain(error: &anyhow::Error, hint: Option<&str>) {
    write_line(true, &format!("error: {error}"));
    for cause in error.chain().skip(1) {
        write_line(true, &format!("  because: {cause}"));
    }
    if let Some(hint) = hint {
        write_line(true, &format!("hint: {hint}"));
    }
}

/// A reader that has gone away (`| head`) ends nothing.
fn write_line(to_stderr: bool, line: &str) {
    let _ = if to_stderr { writeln!(io::stderr().lock(), "{line}") } else { writeln!(io::stdout().lock(), "{line}") };
}

impl Screen {
    /// A screen for runs of these names.
    pub(crate) fn new(output: Output, runs: Vec<String>) -> Self {
        let to_stderr = output != Output::Table;
        let terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let several = runs.len() > 1;
        let shown = runs
            .into_iter()
            .zip(COLOURS.into_iter().cycle())
            .map(|(name, colour)| (name, Shown { colour, ..Shown::default() }))
            .collect();
        Self { to_stderr, colours: coloured(terminal), several, spinner, shown: Arc::new(Mutex::new(shown)) }
    }

    /// Shows events until there are no more.
    pub(crate) async fn show(self, mut events: Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Remark(text) => self.say(&text),
                Event::Output { run, lines } => self.output(&run, &lines),
                Event::Status { run, status } => self.status(&run, &status),
                Event::Notice { run, notice } if notice.warning => {
                    self.say(&format!("{run}: {}: {}", notice.reason, notice.message));
                }
                Event::Notice { .. } => {}
            }
        }
    }

    /// Says something that is not output.
    pub(crate) fn say(&self, text: &str) {
        self.above(|| write_line(true, text));
    }

    /// Takes the spinner away.
    pub(crate) fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }

    fn above(&self, write: impl FnOnce()) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<String, Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn output(&self, run: &str, lines: &[String]) {
        let colour = self.shown().get(run).map_or(0, |shown| shown.colour);
        let prefix = match (self.several, self.colours) {
            (false, _) => String::new(),
            (true, true) => format!("\x1b[{colour}m{run}\x1b[0m | "),
            (true, false) => format!("{run} | "),
        };
        self.above(|| lines.iter().for_each(|line| write_line(self.to_stderr, &format!("{prefix}{line}"))));
    }

    fn status(&self, run: &str, status: &AgentRunStatus) {
        let said = match status.blocked_by.as_slice() {
            [] => status.phase.map_or("Pending", Phase::as_str).to_owned(),
            blocked => {
                let causes: Vec<_> =
                    blocked.iter().map(|b| format!("{}: {} ({})", b.reason, b.message, b.unblocked_by)).collect();
                causes.join("; ")
            }
        };
        let news = {
            let mut shown = self.shown();
            let entry = shown.entry(run.to_owned()).or_default();
            entry.phase = status.phase;
            let news = entry.said != said;
            entry.said.clone_from(&said);
            news
        };
        if news {
            self.say(&format!("{run}: {said}"));
        }
        if let Some(spinner) = &self.spinner {
            spinner.set_message(self.summary());
        }
    }

    fn summary(&self) -> String {
        let shown = self.shown();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for Shown { phase, .. } in shown.values() {
            *counts.entry(phase.map_or("Pending", Phase::as_str)).or_default() += 1;
        }
        match shown.iter().next() {
            Some((name, Shown { phase, .. })) if shown.len() == 1 => {
                format!("{name} {}", phase.map_or("Pending", Phase::as_str))
            }
            _ => counts.iter().map(|(phase, count)| format!("{count} {phase}")).collect::<Vec<_>>().join(", "),
        }
    }
}
