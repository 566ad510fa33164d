//! What runs cost the API server, etcd and the controller, beside what they must cost at least.
//!
//! One cluster, in turns: bare Jobs, those of an operator that does no more than any must, Jobs like ours of the same
//! ([`crate::floor`]), and runs. Machines are noisy, so each figure is the middle one of its rounds, and what is compared is
//! measured in the same rounds, every other of which goes backwards.

use std::{future::Future, time::Duration};

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
    figures::median,
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
/// Most CPU that one may cost the controller, in milliseconds.
const CONTROLLER: f64 = 1.5;

/// What is measured in turns.
struct Turn {
    key: &'static str,
    title: &'static str,
    /// Runs where there is none.
    floor: Option<Floor>,
    /// Of each round.
    costs: Vec<Cost>,
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

pub(crate) async fn play(cluster: &Cluster, programs: &Programs, weight: Weight) -> Result<Vec<Group>> {
    let Weight { runs, rounds, output: _ } = weight;
    let scene = Scene::open(cluster, &programs.agents, &[NAMESPACE]).await?;
    scene.create(vec![floor::definition()])?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", floor::DEFINITION])?;
    Stage { cluster, scene: &scene, name: "sample".to_owned(), count: 1 }.runs().await?;
    let like_ours = floor::job_like_ours(&scene.client, NAMESPACE).await?;
    let turn = |key, title, floor| Turn { key, title, floor, costs: vec![] };
    let floor = |operator, job: Value| Some(Floor { operator, job });
    let mut jobs = turn("jobs", "bare Jobs", floor(false, floor::bare_job()));
    let mut operator =
        turn("operator", "bare Jobs of an operator that does no more than any must", floor(true, floor::bare_job()));
    let mut like_ours = turn("operator-like-ours", "Jobs like ours of that operator", floor(true, like_ours));
    let mut ours = turn("runs", "runs", None);
    for round in 1..=rounds {
        let mut order = [&mut jobs, &mut operator, &mut like_ours, &mut ours];
        if round % 2 == 0 {
            order.reverse();
        }
        for Turn { key, title, floor, costs } in order {
            eprintln!("round {round} of {rounds}: {runs} {title}");
            let stage = Stage { cluster, scene: &scene, name: format!("{key}-{round}"), count: runs };
            costs.push(match floor {
                Some(floor) => stage.floor(floor).await?,
                None => stage.runs().await?,
            });
        }
    }
    let mut groups: Vec<_> = [&jobs, &operator, &like_ours, &ours].map(|turn| turn.group(runs)).into();
    if let Some(group) = groups.last_mut() {
        group.figures.extend(ours.beside(&operator, &like_ours));
    }
    Ok(groups)
}

impl Turn {
    fn middle(&self, of: fn(&Cost) -> f64) -> f64 {
        median(self.costs.iter().map(of))
    }

    fn group(&self, runs: u32) -> Group {
        let figure = |key, what, of, unit| Figure::new(key, what, self.middle(of), unit);
        let figures = vec![
            figure("span", "first creation to last end", |cost| cost.span, Unit::Seconds),
            figure("apiServer", "CPU of the API server", |cost| cost.api_server, Unit::MillisecondsPerRun),
            figure("etcd", "CPU of etcd", |cost| cost.etcd, Unit::MillisecondsPerRun),
        ];
        Group::new(&format!("{runs} {} at once", self.title), figures).named(self.key)
    }

    /// What only runs have: the controller's CPU, and how much they are of the floors.
    fn beside(&self, operator: &Turn, like_ours: &Turn) -> Vec<Figure> {
        let ratio =
            |key, what, of, floor: &Turn| Figure::new(key, what, self.middle(of) / floor.middle(of), Unit::Times);
        let goal = |figure: Figure, most| figure.target(Target::AtMost(most), Gate::No);
        let cpu = self.middle(|cost| cost.controller);
        vec![
            goal(Figure::new("cpu", "CPU of the controller", cpu, Unit::MillisecondsPerRun), CONTROLLER),
            goal(ratio("spanRatio", "time, of the operator's", |cost| cost.span, operator), TIME),
            goal(
                ratio("apiServerRatio", "CPU of the API server, of the operator's", |cost| cost.api_server, operator),
                API_SERVER,
            ),
            ratio("spanLikeOurs", "time, of the operator's with Jobs like ours", |cost| cost.span, like_ours),
            ratio("apiServerLikeOurs", "the same of the API server's CPU", |cost| cost.api_server, like_ours),
        ]
    }
}

struct Stage<'a> {
    cluster: &'a Cluster,
    scene: &'a Scene<'a>,
    name: String,
    count: u32,
}

impl Stage<'_> {
    async fn floor(&self, floor: &Floor) -> Result<Cost> {
        let (client, name) = (&self.scene.client, &self.name);
        floor::play(client, NAMESPACE, floor, &format!("warm-{name}"), WARM_UP).await?;
        self.measured(None, floor::play(client, NAMESPACE, floor, name, self.count)).await
    }

    async fn runs(&self) -> Result<Cost> {
        let (controller, _) = self.scene.controller(&self.name).await?;
        let mut players = Players::enter(self.scene.client.clone(), NAMESPACE)?;
        players.play(&format!("warm-{}", self.name), WARM_UP, Shape::AtOnce).await?;
        let all = async { players.play(&self.name, self.count, Shape::AtOnce).await.map(drop) };
        let cost = self.measured(Some(&controller), all).await?;
        controller.terminate()?;
        players.leave();
        Ok(cost)
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
