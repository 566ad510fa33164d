//! What one AgentRun costs, from its creation to its end: requests, added latency, CPU, memory, sizes.
//!
//! The controller is the released program with the generated rights, beside a real API server, etcd and Job controller;
//! pods are played by hand. Started by `cargo xtask bench trunk`.

mod figures;
mod load;
mod phase;
mod process;
mod scene;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser as _;
use figures::{Figure, Gate, Group, Target, Unit, print};
use load::{Players, Shape};
use phase::Phase;
use scene::Scene;
use xtask::{
    bench::Trunk,
    cluster::{Cluster, Options, Progress, image::ImageSpec, images, product},
};

/// Runs before anything counts: connections, caches and code are warm after them.
const WARM_UP: u32 = 20;
/// How long rest is looked at.
const REST: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Parser)]
struct Arguments {
    #[command(flatten)]
    trunk: Trunk,
    /// What cargo tells every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let Arguments { trunk, bench: _ } = Arguments::parse();
    match measure(trunk).and_then(|groups| print(trunk, &groups).map(|()| figures::violations(&groups))) {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            for violation in violations {
                eprintln!("error: {violation}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(trunk: Trunk) -> Result<Vec<Group>> {
    let progress = Progress::new(|line| eprintln!("{line}"));
    let programs = product::build_release(&progress)?;
    let cluster = Cluster::start(Options { progress, ..Options::default() })?;
    agents_tests::api_server::prepare(&cluster)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut groups = runtime.block_on(play(&cluster, &programs, trunk))?;
    let image = images::product(&images::product_reference(), &programs);
    groups.push(sizes(&cluster, &programs, &image)?);
    drop(runtime);
    cluster.stop()?;
    Ok(groups)
}

async fn play(cluster: &Cluster, programs: &product::Programs, trunk: Trunk) -> Result<Vec<Group>> {
    let Trunk { runs, burst, output: _ } = trunk;
    let scene = Scene::open(cluster, &programs.agents).await?;
    let (controller, _) = scene.controller("first").await?;
    scene.quiet().await?;
    let empty = process::memory(&controller)?;
    let mut groups = vec![Group::new("idle, no runs", scene.rest(&controller, REST).await?)];
    groups[0].figures.extend(empty.figures(Some(15.0)));

    let mut players = Players::enter(scene.client.clone(), scene.namespace())?;
    scene.phase(&controller, &mut players, "warm", WARM_UP, Shape::OneByOne).await?;
    let phases = [
        ("sequential", "one run after another", runs, Shape::OneByOne),
        ("at-5-per-s", "arriving at 5/s", runs, Shape::Rate(5.0)),
        ("at-20-per-s", "arriving at 20/s", runs, Shape::Rate(20.0)),
        ("burst", "all at once", burst, Shape::AtOnce),
    ];
    let mut kept = WARM_UP;
    for (name, title, count, shape) in phases {
        eprintln!("{count} runs {title}");
        let phase: Phase = scene.phase(&controller, &mut players, name, count, shape).await?;
        groups.push(Group::new(&format!("{count} runs {title}"), phase.figures(shape)?).named(name));
        kept += count;
    }

    let full = process::memory(&controller)?;
    let mut rest = scene.rest(&controller, REST).await?;
    rest.extend(full.figures(None));
    groups.push(Group::new(&format!("idle, after {kept} runs"), rest).named("idle-after"));

    // What is left of a load in the allocator is no cost of a run that is kept: a new process shows that alone.
    controller.terminate()?;
    let (controller, ready) = scene.controller("second").await?;
    scene.quiet().await?;
    let again = process::memory(&controller)?;
    let per_run = (again.rss_bytes - empty.rss_bytes) / f64::from(kept);
    let mut figures = vec![
        Figure::new("ready", "start to readiness", ready.as_secs_f64() * 1000.0, Unit::Milliseconds),
        Figure::new("bytesPerRun", "memory per finished run that is kept", per_run / 1024.0, Unit::KibibytesPerRun)
            .target(Target::AtMost(1.0), Gate::No),
    ];
    figures.extend(again.figures(None));
    groups.push(Group::new(&format!("restarted among {kept} finished runs"), figures).named("restarted"));
    controller.terminate()?;
    players.leave();
    Ok(groups)
}

fn sizes(cluster: &Cluster, programs: &product::Programs, image: &ImageSpec) -> Result<Group> {
    let mebibytes = |path: &std::path::Path| -> Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "files are smaller than 2^52 bytes")]
        Ok(std::fs::metadata(path)?.len() as f64 / 1024.0 / 1024.0)
    };
    let archive = cluster.dir().join("product.tar");
    image.write(&archive)?;
    let figure = |key, what, path| anyhow::Ok(Figure::new(key, what, mebibytes(path)?, Unit::Mebibytes));
    let figures = vec![
        figure("agents", "agents, static and stripped", &programs.agents)?,
        figure("agentRunner", "agent-runner, static and stripped", &programs.agent_runner)?,
        figure("image", "image of both, not compressed", &archive)?,
    ];
    Ok(Group::new("sizes", figures))
}
