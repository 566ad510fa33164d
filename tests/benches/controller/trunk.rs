//! One AgentRun: requests, added latency, CPU, memory, sizes.

use std::{path::Path, time::Duration};

use anyhow::Result;
use xtask::{
    bench::Trunk,
    cluster::{Cluster, images, product::Programs},
};

use crate::{
    Figure, Gate, Group, Target, Unit, WARM_UP,
    load::{Players, Shape},
    process,
    scene::Scene,
};

const NAMESPACE: &str = "bench";
/// How long rest is looked at.
const REST: Duration = Duration::from_secs(10);

pub(crate) async fn play(cluster: &Cluster, programs: &Programs, trunk: Trunk) -> Result<Vec<Group>> {
    let Trunk { runs, burst, output: _ } = trunk;
    let scene = Scene::open(cluster, &programs.agents, &[NAMESPACE]).await?;
    let (controller, _) = scene.controller("first").await?;
    scene.quiet().await?;
    let empty = process::memory(&controller)?;
    let mut groups = vec![Group::new("idle, no runs", scene.rest(&controller, REST).await?)];
    groups[0].figures.extend(empty.figures(Some(15.0)));

    let mut players = Players::enter(scene.client.clone(), NAMESPACE)?;
    scene.phase(&controller, players.play("warm", WARM_UP, Shape::OneByOne)).await?;
    let phases = [
        ("sequential", "one run after another", runs, Shape::OneByOne),
        ("at-5-per-s", "arriving at 5/s", runs, Shape::Rate(5.0)),
        ("at-20-per-s", "arriving at 20/s", runs, Shape::Rate(20.0)),
        ("burst", "all at once", burst, Shape::AtOnce),
    ];
    let mut kept = WARM_UP;
    for (name, title, count, shape) in phases {
        eprintln!("{count} runs {title}");
        let phase = scene.phase(&controller, players.play(name, count, shape)).await?;
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
    groups.push(sizes(cluster, programs)?);
    Ok(groups)
}

fn sizes(cluster: &Cluster, programs: &Programs) -> Result<Group> {
    let mebibytes = |path: &Path| -> Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "files are smaller than 2^52 bytes")]
        Ok(std::fs::metadata(path)?.len() as f64 / 1024.0 / 1024.0)
    };
    let archive = cluster.dir().join("product.tar");
    images::product(&images::product_reference(), programs).write(&archive)?;
    let figure = |key, what, path| anyhow::Ok(Figure::new(key, what, mebibytes(path)?, Unit::Mebibytes));
    let figures = vec![
        figure("agents", "agents, static and stripped", &programs.agents)?,
        figure("agentRunner", "agent-runner, static and stripped", &programs.agent_runner)?,
        figure("image", "image of both, not compressed", &archive)?,
    ];
    Ok(Group::new("sizes", figures))
}
