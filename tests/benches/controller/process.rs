//! What the kernel says of the controller's process and of others.

use std::{collections::BTreeMap, time::Duration};

use agents_tests::controller::Controller;
use anyhow::{Context as _, Result};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::{Figure, Gate, Target, Unit};

/// CPU time of all its threads since its start; unlike the ticks of `/proc`, exact to microseconds.
pub(crate) fn cpu(controller: &Controller) -> Result<Duration> {
    cpu_of(controller.pid()?)
}

/// The same of any process.
pub(crate) fn cpu_of(process: Pid) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(process).context("the process has no clock")?;
    Ok(clock_gettime(clock).context("cannot read the clock of the process")?.into())
}

/// Its memory at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) rss_bytes: f64,
    pss_bytes: f64,
    anonymous_bytes: f64,
    peak_bytes: f64,
    threads: f64,
}

pub(crate) fn memory(controller: &Controller) -> Result<Memory> {
    let pid = controller.pid()?;
    let of = |file: &str| -> Result<BTreeMap<String, f64>> {
        let path = format!("/proc/{pid}/{file}");
        let text = std::fs::read_to_string(&path).with_context(|| path)?;
        let lines = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.split_whitespace().next()?.parse().ok()?))
        });
        Ok(lines.collect())
    };
    let (maps, status) = (of("smaps_rollup")?, of("status")?);
    let kibibytes = |from: &BTreeMap<String, f64>, name: &str| -> Result<f64> {
        from.get(name).map(|value| value * 1024.0).with_context(|| format!("the kernel does not say {name}"))
    };
    Ok(Memory {
        rss_bytes: kibibytes(&maps, "Rss")?,
        pss_bytes: kibibytes(&maps, "Pss")?,
        anonymous_bytes: kibibytes(&maps, "Anonymous")?,
        peak_bytes: kibibytes(&status, "VmHWM")?,
        threads: *status.get("Threads").context("the kernel does not say Threads")?,
    })
}

impl Memory {
    /// As figures; `most` is the target in MiB.
    pub(crate) fn figures(self, most: Option<f64>) -> Vec<Figure> {
        let Self { rss_bytes, pss_bytes, anonymous_bytes, peak_bytes, threads } = self;
        let figure = |key, what, bytes: f64| Figure::new(key, what, bytes / 1024.0 / 1024.0, Unit::Mebibytes);
        let mut resident = figure("rss", "memory (RSS)", rss_bytes);
        if let Some(most) = most {
            resident = resident.target(Target::AtMost(most), Gate::No);
        }
        vec![
            resident,
            figure("pss", "memory (PSS)", pss_bytes),
            figure("anonymous", "of it not backed by the program's file", anonymous_bytes),
            figure("peak", "peak memory (RSS)", peak_bytes),
            Figure::new("threads", "threads", threads, Unit::Count),
        ]
    }
}
