//! What runs cost the controller under this program and under others, such as older ones.
//!
//! Every program looks after a namespace of its own of one cluster, and the same load comes to all of them at the same
//! moments: what a machine does besides, and what the API server does at that moment, then weigh on each alike, which no
//! turns of one after another can have. Each program is copied before, since the same bytes cost otherwise where they lie
//! otherwise; with each round each program gets the next namespace.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

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
    process,
    scene::Scene,
};

/// One for each program.
const NAMESPACES: [&[&str]; 4] = [&["pair-1"], &["pair-2"], &["pair-3"], &["pair-4"]];

/// A program and what one run cost it in each round, in milliseconds of CPU.
struct Program {
    title: String,
    copy: PathBuf,
    costs: Vec<f64>,
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
        for (program, cost) in all.iter_mut().zip(costs) {
            eprintln!("round {round} of {rounds}: {cost:.3} ms a run, {}", program.title);
            program.costs.push(cost);
        }
    }
    all.sort_by(|one, other| one.copy.cmp(&other.copy));
    let ours = all[0].costs.clone();
    let group = |(number, program): (usize, &Program)| {
        let costs = || program.costs.iter().copied();
        let figure = |key, what, value| Figure::new(key, what, value, Unit::MillisecondsPerRun);
        let mut figures = vec![
            figure("cpu", "CPU of the controller", median(costs())),
            figure("cpuLeast", "least of a round", costs().fold(f64::INFINITY, f64::min)),
            figure("cpuMost", "most of a round", costs().fold(0.0, f64::max)),
        ];
        if number > 0 {
            let ratios = ours.iter().zip(costs()).map(|(ours, other)| ours / other);
            figures.push(Figure::new("ratio", "that of this program, of it", median(ratios), Unit::Times));
        }
        let key = if number == 0 { "ours".to_owned() } else { format!("against-{number}") };
        Group::new(&format!("{runs} runs at once under {}", program.title), figures).named(&key)
    };
    Ok(all.iter().enumerate().map(group).collect())
}

/// What a run costs each program, while all have as many at the same moments.
async fn together(cast: &[(&Scene<'_>, &Path)], round: u32, runs: u32) -> Result<Vec<f64>> {
    let mut controllers = Vec::new();
    for (scene, program) in cast {
        controllers.push(scene.controller_of(program, &format!("{}-{round}", scene.namespace())).await?.0);
    }
    let enter = |(scene, _): &(&Scene<'_>, &Path)| Players::enter(scene.client.clone(), scene.namespace());
    let mut players: Vec<Players> = cast.iter().map(enter).collect::<Result<_>>()?;
    let mut load = async |name: String, count| -> Result<()> {
        try_join_all(players.iter_mut().map(|players| players.play(&name, count, Shape::AtOnce))).await?;
        for (scene, _) in cast {
            scene.quiet().await?;
        }
        Ok(())
    };
    load(format!("warm-{round}"), WARM_UP).await?;
    let before = controllers.iter().map(process::cpu).collect::<Result<Vec<_>>>()?;
    load(format!("round-{round}"), runs).await?;
    let after = controllers.iter().map(process::cpu).collect::<Result<Vec<_>>>()?;
    for controller in controllers {
        controller.terminate()?;
    }
    players.into_iter().for_each(Players::leave);
    let each = |(before, after): (Duration, Duration)| (after - before).as_secs_f64() * 1000.0 / f64::from(runs);
    Ok(before.into_iter().zip(after).map(each).collect())
}
