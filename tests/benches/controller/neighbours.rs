//! The runs of one namespace while another has runs that are dear to decide.

use std::time::Duration;

use agents_tests::controller::Controller;
use anyhow::Result;
use tokio::try_join;
use xtask::{
    bench::Neighbours,
    cluster::{Cluster, product::Programs},
};

use crate::{
    Figure, Gate, Group, Target, Unit, WARM_UP,
    dear::Dear,
    load::{Players, Shape, Wanted, ordinary},
    phase::{Phase, whole},
    scene::Scene,
};

const QUIET: &str = "quiet";
const DEAR: &str = "dear";
/// Ordinary runs a second, on average.
const RATE: f64 = 5.0;
/// How much longer than undisturbed the slowest of a hundred runs may wait.
const PROMISED: f64 = 2.0;

/// What goes on beside the ordinary runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    OneOfEach,
    EachSecond,
}

struct Stage<'a> {
    scene: Scene<'a>,
    controller: Controller,
    quiet: Players,
    dear: Players,
    runs: u32,
}

pub(crate) async fn play(cluster: &Cluster, programs: &Programs, neighbours: Neighbours) -> Result<Vec<Group>> {
    let Neighbours { runs, output: _ } = neighbours;
    let scene = Scene::open(cluster, &programs.agents, &[QUIET, DEAR]).await?;
    for dear in Dear::ALL {
        scene.create(dear.objects(DEAR)?.into())?;
    }
    let (controller, _) = scene.controller("only").await?;
    scene.quiet().await?;
    let enter = |namespace| Players::enter(scene.client.clone(), namespace);
    let (quiet, dear) = (enter(QUIET)?, enter(DEAR)?);
    let mut stage = Stage { scene, controller, quiet, dear, runs };
    stage.scene.phase(&stage.controller, stage.quiet.play("warm", WARM_UP, Shape::OneByOne)).await?;

    let mut groups = Vec::new();
    let mut undisturbed: Option<Phase> = None;
    let phases = [
        ("undisturbed", "undisturbed", Beside::Nothing),
        ("again", "undisturbed again, for what chance does", Beside::Nothing),
        ("one", "beside one dear run that is refused and one that is admitted", Beside::OneOfEach),
        ("each-second", "beside one of each every second", Beside::EachSecond),
    ];
    for (name, title, beside) in phases {
        eprintln!("{runs} runs {title}");
        let (phase, others) = stage.phase(name, beside).await?;
        let mut figures = phase.figures_beside_others()?;
        figures.extend(others);
        match &undisturbed {
            Some(undisturbed) => figures.extend(ratios(&phase, undisturbed, beside)?),
            None => undisturbed = Some(phase),
        }
        groups.push(Group::new(&format!("{runs} runs at {RATE}/s {title}"), figures).named(name));
    }
    let Stage { controller, quiet, dear, .. } = stage;
    controller.terminate()?;
    quiet.leave();
    dear.leave();
    Ok(groups)
}

impl Stage<'_> {
    /// The phase, and how the dear runs in it ended.
    async fn phase(&mut self, name: &str, beside: Beside) -> Result<(Phase, Vec<Figure>)> {
        let wanted = ordinary(name, self.runs, RATE);
        let others = dear_runs(name, beside, &wanted);
        let mut counts = Vec::new();
        for (key, what, dear) in [
            ("dearRefused", "dear runs that ended with TemplateLimit", Dear::Refused),
            ("dearAdmitted", "dear runs that succeeded", Dear::Admitted),
        ] {
            let count = whole(others.iter().filter(|(of, _)| *of == dear).count());
            if count > 0.0 {
                // Whoever waits for them fails at the first that ends otherwise.
                counts.push(Figure::new(key, what, count, Unit::Count));
            }
        }
        let (quiet, dear) = (&mut self.quiet, &mut self.dear);
        let load = async {
            let others = others.into_iter().map(|(_, wanted)| wanted).collect();
            let (made, _) = try_join!(quiet.arrive(wanted), dear.arrive(others))?;
            Ok(made)
        };
        Ok((self.scene.phase(&self.controller, load).await?, counts))
    }
}

/// The dear runs beside `ordinary` ones. A single one comes at the very moment of an ordinary run.
fn dear_runs(prefix: &str, beside: Beside, ordinary: &[Wanted]) -> Vec<(Dear, Wanted)> {
    let at = |part: usize| ordinary[ordinary.len() * part / 8].at;
    match beside {
        Beside::Nothing => vec![],
        Beside::OneOfEach => {
            [(Dear::Refused, at(4)), (Dear::Admitted, at(5))].map(|(dear, at)| (dear, dear.run(prefix, at))).into()
        }
        Beside::EachSecond => {
            let seconds = ordinary.last().map_or(0, |last| last.at.as_secs());
            let both = |second: u64| {
                let at = Duration::from_secs(second);
                let run = |dear: Dear, at| (dear, dear.run(&format!("{prefix}-{second}"), at));
                [run(Dear::Refused, at), run(Dear::Admitted, at + Duration::from_millis(500))]
            };
            (0..seconds.max(1)).flat_map(both).collect()
        }
    }
}

fn ratios(phase: &Phase, undisturbed: &Phase, beside: Beside) -> Result<Vec<Figure>> {
    let ratio = |key, what, one: f64, other: f64| Figure::new(key, what, one / other, Unit::Times);
    let p99 = |phase: &Phase| anyhow::Ok((phase.submitted()?.at(99), phase.started()?.at(99), phase.ended()?.at(99)));
    let ((submit, start, end), before) = (p99(phase)?, p99(undisturbed)?);
    let mut promised = ratio("submitRatio", "run stored to Job received, p99 to undisturbed", submit, before.0);
    if beside != Beside::Nothing {
        promised = promised.target(Target::AtMost(PROMISED), Gate::No);
    }
    Ok(vec![
        promised,
        ratio("startRatio", "pod's start stored to status received, p99 to undisturbed", start, before.1),
        ratio("endRatio", "pod's end stored to status received, p99 to undisturbed", end, before.2),
    ])
}
