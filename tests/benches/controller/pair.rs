//! What runs cost and wait under this program and under others, such as older ones.
//!
//! Every program looks after a namespace of its own of one cluster, and the same load comes to all of them at the same
//! moments: what a machine does besides, and what the API server does at that moment, then weigh on each alike, which no
//! turns of one after another can have. Each program is copied before, so that all lie on the disk alike; with each round
//! each program gets the next namespace.

use std::path::{Path, PathBuf};

use agents_tests::controller::Controller;
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use xtask::{
    bench::Pair,
    cluster::{Cluster, product::Programs},
};

use crate::{
    Figure, Group, Unit, WARM_UP,
    figures::median,
    load::{Players, Shape},
    phase::Phase,
    process,
    scene::Scene,
};

/// One for each program.
const NAMESPACES: [&[&str]; 4] = [&["pair-1"], &["pair-2"], &["pair-3"], &["pair-4"]];
/// Arrivals a second under each program, where it is measured what they wait.
const RATE: f64 = 5.0;

/// What is compared, and as which share of another: of the runs that come at once, of those that arrive, and of the process
/// after both.
const FIGURES: [(&str, &str, &str, Unit); 6] = [
    ("cpu", "cpuRatio", "at once: CPU of the controller", Unit::MillisecondsPerRun),
    ("submitP50", "submitP50Ratio", "at 5/s: run stored to Job received, p50", Unit::Milliseconds),
    ("submitP99", "submitP99Ratio", "at 5/s: run stored to Job received, p99", Unit::Milliseconds),
    ("endP50", "endP50Ratio", "at 5/s: pod's end stored to status received, p50", Unit::Milliseconds),
    ("endP99", "endP99Ratio", "at 5/s: pod's end stored to status received, p99", Unit::Milliseconds),
    ("rss", "rssRatio", "memory (RSS) after the round", Unit::Mebibytes),
];

/// The same in that order.
type Costs = [f64; FIGURES.len()];

struct Program {
    title: String,
    copy: PathBuf,
    /// Of each round.
    costs: Vec<Costs>,
}

pub(crate) async fn play(cluster: &Cluster, programs: &Programs, pair: &Pair) -> Result<Vec<Group>> {
    let Pair { runs, rounds, against, output: _ } = pair;
    ensure!(against.len() < NAMESPACES.len(), "--against: {} programs at most", NAMESPACES.len() - 1);
    let all = [&programs.agents].into_iter().chain(against);
    let mut all: Vec<Program> = (1..)
        .zip(all)
        .map(|(number, program)| {
            let title = if number == 1 { "this program".to_owned() } else { program.display().to_string() };
            let copy = cluster.dir().join(format!("agents-{number}"));
            std::fs::copy(program, &copy).with_context(|| format!("failed to copy {}", program.display()))?;
            Ok(Program { title, copy, costs: vec![] })
        })
        .collect::<Result<_>>()?;
    let mut scenes = Vec::new();
    for (_, namespaces) in all.iter().zip(NAMESPACES) {
        scenes.push(Scene::open(cluster, &programs.agents, namespaces).await?);
    }
    for round in 1..=*rounds {
        all.rotate_left(1);
        let cast: Vec<_> = scenes.iter().zip(all.iter().map(|program| program.copy.as_path())).collect();
        let costs = together(&cast, round, *runs).await?;
        for (program, costs) in all.iter_mut().zip(costs) {
            eprintln!("round {round} of {rounds}: {costs:.2?}, {}", program.title);
            program.costs.push(costs);
        }
    }
    all.sort_by(|one, other| one.copy.cmp(&other.copy));
    let ours = all[0].costs.clone();
    let group = |(number, program): (usize, &Program)| {
        let figures = FIGURES.iter().enumerate().flat_map(|(which, (key, of_other, what, unit))| {
            let costs = || program.costs.iter().map(move |costs| costs[which]);
            let ratios = ours.iter().map(|ours| ours[which]).zip(costs()).map(|(ours, other)| ours / other);
            let figure = Figure::new(key, what, median(costs()), *unit);
            // The middle one of the ratios of each round: what a round has of its own is in both.
            let ratio = Figure::new(of_other, "that of this program, of it", median(ratios), Unit::Times);
            [Some(figure), (number > 0).then_some(ratio)].into_iter().flatten()
        });
        let key = if number == 0 { "ours".to_owned() } else { format!("against-{number}") };
        Group::new(&format!("{runs} runs under {}", program.title), figures.collect()).named(&key)
    };
    Ok(all.iter().enumerate().map(group).collect())
}

/// What each program is measured at, while all have as many runs at the same moments.
async fn together(cast: &[(&Scene<'_>, &Path)], round: u32, runs: u32) -> Result<Vec<Costs>> {
    let mut controllers = Vec::new();
    for (scene, program) in cast {
        controllers.push(scene.controller_of(program, &format!("{}-{round}", scene.namespace())).await?.0);
    }
    let enter = |(scene, _): &(&Scene<'_>, &Path)| Players::enter(scene.client.clone(), scene.namespace());
    let mut players: Vec<Players> = cast.iter().map(enter).collect::<Result<_>>()?;
    let load = async |players: &mut [Players], name: &str, count, shape| -> Result<Vec<Phase>> {
        let name = format!("{name}-{round}");
        let each = cast.iter().zip(controllers.iter().zip(players));
        let phases = each.map(|((scene, _), (controller, players))| {
            let (scene, name) = (*scene, &name);
            scene.phase(controller, players.play(name, count, shape))
        });
        try_join_all(phases).await
    };
    load(&mut players, "warm", WARM_UP, Shape::AtOnce).await?;
    let at_once = load(&mut players, "at-once", runs, Shape::AtOnce).await?;
    let arriving = load(&mut players, "arriving", runs.div_ceil(3), Shape::Rate(RATE)).await?;
    let costs = |((at_once, arriving), controller): ((Phase, Phase), &Controller)| {
        let (submitted, ended) = (arriving.submitted()?, arriving.ended()?);
        let mebibytes = process::memory(controller)?.rss_bytes / 1024.0 / 1024.0;
        Ok([at_once.cpu_of_a_run(), submitted.at(50), submitted.at(99), ended.at(50), ended.at(99), mebibytes])
    };
    let costs = at_once.into_iter().zip(arriving).zip(&controllers).map(costs).collect();
    for controller in controllers {
        controller.terminate()?;
    }
    players.into_iter().for_each(Players::leave);
    costs
}
