//! Named steps of a long command: each is said when it begins, timed, and stands in a table at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The steps of one command so far.
pub struct Steps<'s> {
    say: &'s mut dyn FnMut(&str),
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
    /// Part of the step above it, whose time has it in.
    Within,
}

impl<'s> Steps<'s> {
    /// None yet; everything that is said goes to `say`, a line at a time.
    pub fn new(say: &'s mut dyn FnMut(&str)) -> Self {
        Self { say, done: Vec::new() }
    }

    /// Says a line.
    pub fn say(&mut self, line: &str) {
        (self.say)(line);
    }

    /// Does one step. A failure is said and kept for [`Steps::verdict`]; the next step can be done all the same.
    pub fn step<T>(&mut self, name: impl Into<String>, work: impl FnOnce(&mut Self) -> Result<T>) -> Option<T> {
        let name = name.into();
        self.say(&format!("step: {name}"));
        let place = self.done.len();
        let began = Instant::now();
        let result = work(self);
        let outcome = if result.is_ok() { Outcome::Passed } else { Outcome::Failed };
        self.done.insert(place, Step { name: name.clone(), took: began.elapsed(), outcome });
        result.map_err(|error| self.say(&format!("step: {name} failed: {error:#}"))).ok()
    }

    /// A part of the step that is being done, which took `took`.
    pub fn within(&mut self, name: &str, took: Duration) {
        self.done.push(Step { name: format!("  {name}"), took, outcome: Outcome::Within });
    }

    /// A step that cannot be done here, and need not.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.say(&format!("step: {name} skipped: {why}"));
        self.done.push(Step { name: name.to_owned(), took: Duration::ZERO, outcome: Outcome::Skipped });
    }

    /// How long all steps took together.
    pub fn took(&self) -> Duration {
        self.done.iter().filter(|step| step.outcome != Outcome::Within).map(|step| step.took).sum()
    }

    /// Whether no step has failed.
    pub fn all_passed(&self) -> bool {
        self.done.iter().all(|step| step.outcome != Outcome::Failed)
    }

    /// Prints the table of the steps and their times.
    pub fn print(&mut self) {
        let width = self.done.iter().map(|step| step.name.chars().count()).max().unwrap_or_default().max("all".len());
        let mut lines = Vec::new();
        for Step { name, took, outcome } in &self.done {
            let note = match outcome {
                Outcome::Passed | Outcome::Within => "",
                Outcome::Failed => "  failed",
                Outcome::Skipped => "  skipped",
            };
            lines.push(format!("{name:width$} {:>9}{note}", clock(*took)));
        }
        lines.push(format!("{:width$} {:>9}", "all", clock(self.took())));
        lines.iter().for_each(|line| self.say(line));
    }

    /// # Errors
    /// The names of the steps that failed.
    pub fn verdict(&self) -> Result<()> {
        let failed = self.done.iter().filter(|step| step.outcome == Outcome::Failed).map(|step| step.name.as_str());
        let failed: Vec<_> = failed.collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }
}

/// Minutes and seconds.
pub fn clock(time: Duration) -> String {
    let tenths = time.as_millis() / 100;
    let (minutes, seconds) = (tenths / 600, tenths % 600);
    if minutes == 0 {
        format!("{}.{} s", seconds / 10, seconds % 10)
    } else {
        format!("{minutes} m {:02} s", seconds / 10)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anyhow::bail;

    use super::{Steps, clock};

    #[test]
    fn every_step_stands_in_the_table_with_its_time_and_the_failed_ones_are_named() {
        let mut said = Vec::new();
        let mut say = |line: &str| said.push(line.to_owned());
        let mut steps = Steps::new(&mut say);
        assert_eq!(steps.step("one", |_| Ok(1)), Some(1));
        steps.step("two", |steps| {
            steps.within("half of it", Duration::from_secs(61));
            bail!("it broke") as anyhow::Result<()>
        });
        steps.skip("three", "there is no node");
        assert!(!steps.all_passed() && steps.took() < Duration::from_secs(60), "a part is not counted twice");
        assert_eq!(steps.verdict().unwrap_err().to_string(), "failed: two");
        steps.print();
        let said = said.join("\n");
        assert!(
            said.contains("step: two failed: it broke") && said.contains("three skipped: there is no node"),
            "{said}"
        );
        let table: Vec<_> = said.lines().rev().take(5).map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(table, ["all", "three", "half", "two", "one"], "{said}");
        assert!(said.contains("half of it  1 m 01 s"), "{said}");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(clock(Duration::from_millis(1240)), "1.2 s");
        assert_eq!(clock(Duration::from_secs(3605)), "60 m 05 s");
    }
}
