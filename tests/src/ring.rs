//! A test ring over one shared cluster: started before its first test, taken down after its last.

use std::{process::ExitCode, sync::Arc, time::Instant};

use libtest_mimic::{Arguments, Trial};
use xtask::{
    cluster::{Cluster, Options, Progress},
    rings::{self, Ring},
};

/// A test of a ring: a name, and what it does with the shared cluster.
pub type Case = (&'static str, fn(&Cluster) -> anyhow::Result<()>);

/// Runs the cases of `ring`, `threads` at a time, after `prepare` has made the cluster ready for all of them.
pub fn run(ring: Ring, threads: usize, prepare: fn(&Cluster) -> anyhow::Result<()>, cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(threads);
    let wanted = |(name, _): &&Case| match &arguments.filter {
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    if arguments.list || !rings::enabled(ring) || !cases.iter().any(|case| wanted(&case)) {
        let trials =
            if arguments.list { cases.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect() } else { vec![] };
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let progress = Progress::new(|line| eprintln!("{line}"));
    let options = Options { node: ring == Ring::Node, progress, ..Options::default() };
    let cluster = match Cluster::start(options).and_then(|cluster| prepare(&cluster).map(|()| cluster)) {
        Ok(cluster) => Arc::new(cluster),
        Err(error) => {
            eprintln!("error: the cluster of the ring could not be started: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases
        .iter()
        .map(|(name, case)| {
            let (cluster, name, case) = (Arc::clone(&cluster), *name, *case);
            Trial::test(name, move || {
                let began = Instant::now();
                let result = case(&cluster).map_err(|error| format!("{error:#}").into());
                eprintln!("{name} took {:.1} s", began.elapsed().as_secs_f64());
                result
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    match Arc::into_inner(cluster).map(Cluster::stop) {
        Some(Err(error)) => {
            eprintln!("error: the cluster of the ring could not be taken down: {error:#}");
            ExitCode::FAILURE
        }
        Some(Ok(())) | None => conclusion.exit_code(),
    }
}
