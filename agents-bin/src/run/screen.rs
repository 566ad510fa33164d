//! What people see while runs run: output lines, changes of state, a spinner on a terminal. Writes to the terminal and
//! decides nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agents_core::{
    api::{AgentRunStatus, agent_run::Phase},
    hidden::visible,
};
use agents_runtime::local::Event;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;

use super::Output;
use crate::output::{self, Stream};

/// Colours of the runs' names, in turn: cyan, yellow, green, magenta, blue.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

/// The screen; clones show the same one.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// Output goes to standard error when standard output is for machines.
    output: Stream,
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

impl Screen {
    /// A screen for runs of these names.
    pub(crate) fn new(output: Output, runs: Vec<String>) -> Self {
        let output = if output == Output::Table { Stream::Out } else { Stream::Err };
        let spinner = Stream::Err.is_drawable().then(|| {
            let bar = ProgressBar::new_spinner();
            // A message that is wider than the terminal would be drawn anew below itself.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
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
        Self { output, colours: output.is_coloured(), several, spinner, shown: Arc::new(Mutex::new(shown)) }
    }

    /// Shows events until there are no more. Waits for whoever reads the streams, so it wants a thread of its own.
    pub(crate) fn show(&self, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Remark(text) => self.say(&text),
                // There is room for more output when this was shown.
                Event::Output { run, lines, room: _room } => self.output(&run, &lines),
                Event::Status { run, status } => self.status(&run, &status),
                Event::Phase { object, phase } => self.say(&format!("{object}: {phase}")),
                Event::Notice { object, notice } if notice.warning => {
                    self.say(&format!("{object}: {}: {}", notice.reason, notice.message));
                }
                Event::Notice { .. } => {}
            }
        }
    }

    /// Says something that is not output, in one line that shows what is hidden in it.
    pub(crate) fn say(&self, text: &str) {
        self.above(Stream::Err, || output::line(Stream::Err, &visible(text)));
    }

    /// Takes the spinner away.
    pub(crate) fn clear(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }

    /// Writes where the spinner does not stand. A stream that is no terminal does not disturb it.
    fn above(&self, stream: Stream, write: impl FnOnce()) {
        match &self.spinner {
            Some(spinner) if stream.is_terminal() => spinner.suspend(write),
            Some(_) | None => write(),
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
        let text: String = lines.iter().flat_map(|line| [prefix.as_str(), line, "\n"]).collect();
        self.above(self.output, || output::write(self.output, &text));
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
