//! What runs cost the API server, etcd and the controller, beside what they must cost at least.
//!
//! One cluster, in turns: bare Jobs, those of an operator that does no more than any must, Jobs like ours of the same
//! ([`crate::floor`]), runs, and runs under other programs where some are named. Machines are noisy, so each figure is the
//! middle one of its rounds, and what is compared is measured in the same rounds, every other of which goes backwards.

use std::{future::Future, path::Path, time::Duration};

use agents_tests::controller::Controller;
use anyhow::Result;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;
use xtask::{
    bench::Weight,
    cluster::{Cluster, Component, product::Programs},
};

use crate::{
    Figure, Gate, Group, Target, Unit, WARM_UP,
    floor::{self, Floor},
    load::{Players, Shape},
    process,
    scene::Scene,
};

const NAMESPACE: &str = "weight";
/// Most that runs may take of the time that the operator's floor takes.
const TIME: f64 = 1.10;
/// Most that they may cost the API server, where the operator's floor costs it 1.
const API_SERVER: f64 = 1.15;

/// Who makes what.
#[derive(Debug, Clone)]
enum Turn<'a> {
    Floor(Floor),
    Runs(&'a Path),
}

/// Whose clocks are read.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    api_server: Duration,
    etcd: Duration,
    controller: Duration,
}

/// What one of so many has cost, in milliseconds of CPU, and how long all of them took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    span: f64,
    api_server: f64,
    etcd: f64,
    controller: f64,
}

pub(crate) async fn play(cluster: &Cluster, programs: &Programs, weight: &Weight) -> Result<Vec<Group>> {
    let Weight { runs, rounds, against, output: _ } = weight;
    let scene = Scene::open(cluster, &programs.agents, &[NAMESPACE]).await?;
    scene.create(vec![floor::definition()])?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", floor::DEFINITION])?;
    let sample = Stage { cluster, scene: &scene, name: "sample".to_owned(), count: 1 };
    sample.play(&Turn::Runs(&programs.agents)).await?;
    let like_ours = floor::job_like_ours(&scene.client, NAMESPACE).await?;
    let floor = |operator, job: &Value| Turn::Floor(Floor { operator, job: job.clone() });
    let bare = floor::bare_job();
    let named = |key: &str, title: &str, turn| (key.to_owned(), title.to_owned(), turn);
    let mut turns = vec![
        named("jobs", "bare Jobs", floor(false, &bare)),
        named("operator", "bare Jobs of an operator that does no more than any must", floor(true, &bare)),
        named("operator-like-ours", "Jobs like ours of that operator", floor(true, &like_ours)),
        named("runs", "runs", Turn::Runs(&programs.agents)),
    ];
    for (number, other) in (1..).zip(against) {
        let title = format!("runs under {}", other.display());
        turns.push((format!("against-{number}"), title, Turn::Runs(other)));
    }
    let mut costs: Vec<Vec<Cost>> = turns.iter().map(|_| vec![]).collect();
    for round in 1..=*rounds {
        let mut order: Vec<_> = turns.iter().zip(&mut costs).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for ((key, title, turn), costs) in order {
            eprintln!("round {round} of {rounds}: {runs} {title}");
            let stage = Stage { cluster, scene: &scene, name: format!("{key}-{round}"), count: *runs };
            costs.push(stage.play(turn).await?);
        }
    }
    let middle = |of: fn(&Cost) -> f64, which: usize| {
        let mut values: Vec<f64> = costs[which].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
    };
    let (operator, like_ours) = (1, 2);
    let group = |(which, (key, title, turn)): (usize, &(String, String, Turn<'_>))| {
        let figure = |key, what, of: fn(&Cost) -> f64, unit| Figure::new(key, what, middle(of, which), unit);
        let ratio = |key, what, of: fn(&Cost) -> f64, floor| {
            Figure::new(key, what, middle(of, which) / middle(of, floor), Unit::Times)
        };
        let goal = |figure: Figure, most| figure.target(Target::AtMost(most), Gate::No);
        let mut figures = vec![
            figure("span", "first creation to last end", |cost| cost.span, Unit::Seconds),
            figure("apiServer", "CPU of the API server", |cost| cost.api_server, Unit::MillisecondsPerRun),
            figure("etcd", "CPU of etcd", |cost| cost.etcd, Unit::MillisecondsPerRun),
        ];
        if let Turn::Runs(_) = turn {
            let cpu = figure("cpu", "CPU of the controller", |cost| cost.controller, Unit::MillisecondsPerRun);
            figures.extend([
                goal(cpu, 1.5),
                goal(ratio("spanRatio", "time, of the operator's", |cost| cost.span, operator), TIME),
                goal(
                    ratio(
                        "apiServerRatio",
                        "CPU of the API server, of the operator's",
                        |cost| cost.api_server,
                        operator,
                    ),
                    API_SERVER,
                ),
                ratio("spanLikeOurs", "time, of the operator's with Jobs like ours", |cost| cost.span, like_ours),
                ratio("apiServerLikeOurs", "the same of the API server's CPU", |cost| cost.api_server, like_ours),
            ]);
        }
        Group::new(&format!("{runs} {title} at once"), figures).named(key)
    };
    Ok(turns.iter().enumerate().map(group).collect())
}

struct Stage<'a> {
    cluster: &'a Cluster,
    scene: &'a Scene<'a>,
    name: String,
    count: u32,
}

impl Stage<'_> {
    async fn play(&self, turn: &Turn<'_>) -> Result<Cost> {
        match turn {
            Turn::Floor(which) => {
                let (client, name) = (&self.scene.client, &self.name);
                floor::play(client, NAMESPACE, which, &format!("warm-{name}"), WARM_UP).await?;
                self.measured(None, floor::play(client, NAMESPACE, which, name, self.count)).await
            }
            Turn::Runs(program) => {
                let (controller, _) = self.scene.controller_of(program, &self.name).await?;
                let mut players = Players::enter(self.scene.client.clone(), NAMESPACE)?;
                players.play(&format!("warm-{}", self.name), WARM_UP, Shape::AtOnce).await?;
                let all = async { players.play(&self.name, self.count, Shape::AtOnce).await.map(drop) };
                let cost = self.measured(Some(&controller), all).await?;
                controller.terminate()?;
                players.leave();
                Ok(cost)
            }
        }
    }

    async fn measured(&self, controller: Option<&Controller>, load: impl Future<Output = Result<()>>) -> Result<Cost> {
        self.scene.quiet().await?;
        let (before, began) = (self.clocks(controller)?, Instant::now());
        load.await?;
        let span = began.elapsed().as_secs_f64();
        self.scene.quiet().await?;
        let after = self.clocks(controller)?;
        let each = |of: fn(&Clocks) -> Duration| {
            of(&after).saturating_sub(of(&before)).as_secs_f64() * 1000.0 / f64::from(self.count)
        };
        Ok(Cost {
            span,
            api_server: each(|clocks| clocks.api_server),
            etcd: each(|clocks| clocks.etcd),
            controller: each(|clocks| clocks.controller),
        })
    }

    fn clocks(&self, controller: Option<&Controller>) -> Result<Clocks> {
        let of = |component| process::cpu_of(Pid::from_raw(self.cluster.pid(component)?));
        let controller = controller.map(process::cpu).transpose()?.unwrap_or_default();
        Ok(Clocks { api_server: of(Component::ApiServer)?, etcd: of(Component::Etcd)?, controller })
    }
}
