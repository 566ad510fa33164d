//! Our cron expressions and time zones against those that the API server takes for a CronJob.

use agents_core::{
    cron::{Cron, CronError, PartProblem},
    timezone,
};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, stream};
use kube::api::PostParams;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::stage::{Stage, play};

/// Generated expressions.
const EXPRESSIONS: usize = 400;
/// Questions that are asked at a time.
const AT_A_TIME: usize = 8;

/// Whatever we read a CronJob takes; what it takes and we refuse, we refuse for a reason that is ours alone. The rules in
/// the definition of Schedule refuse nothing that we read.
pub(crate) fn expressions_are_those_of_a_cron_job(cluster: &Cluster) -> Result<()> {
    play(cluster, "crons", async |stage| {
        let texts: Vec<String> = odd().into_iter().chain(expressions()).collect();
        let answers: Vec<(String, bool, bool)> = stream::iter(texts)
            .map(async |text| {
                let native = taken(stage, "cronjobs", &cron_job(&text, None)).await?;
                let ours = taken(stage, "schedules", &schedule(&text, None)).await?;
                anyhow::Ok((text, native, ours))
            })
            .buffer_unordered(AT_A_TIME)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<_>>()?;
        let (mut good, mut bad, mut seen) = (0, 0, 0);
        for (text, native, ours) in &answers {
            match Cron::parse(text) {
                Ok(_) => {
                    ensure!(*native, "{text:?}: we read it and a CronJob does not");
                    ensure!(*ours, "{text:?}: we read it and the definition refuses it");
                    good += 1;
                }
                Err(error) if ours_alone(&error) => {
                    ensure!(*native, "{text:?}: a CronJob refuses it, too; we say {error}");
                }
                Err(error) => {
                    ensure!(!native, "{text:?}: a CronJob takes it; we say {error}");
                    bad += 1;
                    seen += usize::from(!ours);
                }
            }
        }
        ensure!(good > answers.len() / 4 && bad > answers.len() / 5, "{good} good and {bad} bad of {}", answers.len());
        // The rest is reversed ranges, steps of zero and durations.
        ensure!(seen * 3 > bad, "the definition refuses {seen} of {bad} by itself");
        Ok(())
    })
}

/// Every name of a time zone that we know a CronJob takes, and what we do not know it refuses.
pub(crate) fn time_zones_are_those_of_a_cron_job(cluster: &Cluster) -> Result<()> {
    play(cluster, "timezones", async |stage| {
        let known = timezone::names().map(str::to_owned);
        let strange = [
            "",
            "Local",
            "local",
            "utc",
            "europe/berlin",
            "Mars/Olympus",
            "../UTC",
            "/UTC",
            "UTC ",
            "+02:00",
            "Europe",
        ];
        let answers: Vec<Result<()>> = stream::iter(known.chain(strange.map(str::to_owned)))
            .map(async |name| {
                let native = taken(stage, "cronjobs", &cron_job("@daily", Some(&name))).await?;
                let ours = taken(stage, "schedules", &schedule("@daily", Some(&name))).await?;
                let known = timezone::find(&name).is_ok();
                ensure!(native == known, "{name:?}: known to a CronJob: {native}, to us: {known}");
                ensure!(ours || !known, "{name:?}: we know it and the definition refuses it");
                Ok(())
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        ensure!(answers.len() > 500, "{} names", answers.len());
        answers.into_iter().collect()
    })
}

/// What a CronJob takes and we refuse: it would fire never, or each second, or is read as something else than it says.
fn ours_alone(error: &CronError) -> bool {
    match error {
        CronError::Never
        | CronError::TooOften
        | CronError::Blank(_)
        | CronError::Part { problem: PartProblem::StarRange, .. } => true,
        CronError::Long(_)
        | CronError::FieldCount(_)
        | CronError::Part { .. }
        | CronError::Word(_)
        | CronError::Duration(_)
        | CronError::Zone => false,
    }
}

/// Whether the API server would store it; a refusal that is not about its content is an error.
async fn taken(stage: &Stage<'_>, plural: &str, object: &Value) -> Result<bool> {
    let object = serde_json::from_value(object.clone()).context("the case's object")?;
    match stage.api(plural).create(&PostParams { dry_run: true, field_manager: None }, &object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(false),
        Err(error) => bail!("failed to ask about {object:?}: {error}"),
    }
}

fn cron_job(expression: &str, zone: Option<&str>) -> Value {
    let container = json!({"name": "main", "image": "nothing"});
    let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "asked"},
        "spec": {"schedule": expression, "jobTemplate": {"spec": {"template": pod}}},
    });
    if let Some(zone) = zone {
        job["spec"]["timeZone"] = json!(zone);
    }
    job
}

fn schedule(expression: &str, zone: Option<&str>) -> Value {
    let mut schedule = json!({
        "apiVersion": "schedules.proompteng.ai/v1alpha1", "kind": "Schedule", "metadata": {"name": "asked"},
        "spec": {"cron": expression, "targetRef": {"kind": "AgentRun", "name": "template"}},
    });
    if let Some(zone) = zone {
        schedule["spec"]["timezone"] = json!(zone);
    }
    schedule
}

fn odd() -> Vec<String> {
    [
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
        "@reboot",
        "@Daily",
        "@daily ",
        " @daily",
        "@every 1h",
        "@every 1h30m10s",
        "@every 1.5h",
        "@every .5h",
        "@every 1.h",
        "@every +1h",
        "@every -1h",
        "@every 0",
        "@every 999ms",
        "@every 1s",
        "@every 1",
        "@every h",
        "@every 1d",
        "@every",
        "@every ",
        "@every 1h 30m",
        "@every 1µs",
        "@every 2000000us",
        "@every 2562047h",
        "@every 2562048h",
        "@every 9223372036854775807ns",
        "@every 0.1e3s",
        "@every  1h",
        "",
        " ",
        "*",
        "* * * * * *",
        "\t0  0 * * *\t",
        "0\u{a0}0 * * *",
        "00 00 01 01 00",
        "+5 * * * *",
        "5- * * * *",
        "-5 * * * *",
        "0 0 * * 7",
        "0 0 * * sun-sat",
        "0 0 * * SAT-sun",
        "0 0 ? JAN ?",
        "0 0 1-31/40 * *",
        "*/60 * * * *",
        "*/0 * * * *",
        "5/7 * * * *",
        "5-10/3 * * * *",
        "*-5 * * * *",
        "?-9/2 * * * *",
        "1,,2 * * * *",
        ", * * * *",
        "1, * * * *",
        "0 0 30 2 *",
        "0 0 30 2 1",
        "0 0 31 4,6 *",
        "0 0 29 2 *",
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 * * 5#2",
        "H * * * *",
        "1.5 * * * *",
        "0x5 * * * *",
        "١ * * * *",
        "* * * * mon,tue,wed,thu,fri",
        "* * * january *",
        "* * * * monday",
        "TZ=UTC 0 0 * * *",
        "CRON_TZ=Europe/Berlin 0 0 * * *",
        "99999999999999999999 * * * *",
        "*/99999999999999999999 * * * *",
        "*/4294967295 * * * *",
        "0 0 * * *\n",
        "~ * * * *",
        "59-0 * * * *",
        "10-70 * * * *",
        "70-10 * * * *",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Expressions, most of them nearly right, the same ones each time.
fn expressions() -> Vec<String> {
    fn field(low: i64, high: i64, names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let number = prop_oneof![
            40 => (low..=high).prop_map(|number| number.to_string()),
            1 => (low - 2..=high + 2).prop_map(|number| number.to_string()),
            2 => (low..=high).prop_map(|number| format!("0{number}")),
            4 => prop::sample::select(if names.is_empty() { &["5"][..] } else { names }).prop_map(str::to_owned),
            1 => prop::sample::select(vec!["", "x", "MON", "Feb", "L"]).prop_map(str::to_owned),
        ];
        let range = prop_oneof![
            4 => Just("*".to_owned()),
            1 => Just("?".to_owned()),
            5 => number.clone(),
            3 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (number.clone(), number).prop_map(|(a, b)| format!("{a}-{b}")),
        ];
        let part = (range, prop_oneof![8 => Just(None), 2 => (0..40_u8).prop_map(Some)])
            .prop_map(|(range, step)| step.map_or(range.clone(), |step| format!("{range}/{step}")));
        prop_oneof![5 => part.clone(), 1 => prop::collection::vec(part, 2..4).prop_map(|parts| parts.join(","))]
    }
    let expression = (
        field(0, 59, &[]),
        field(0, 23, &[]),
        field(1, 31, &[]),
        field(1, 12, &["jan", "FEB", "mAr", "dec"]),
        field(0, 6, &["sun", "SAT", "wEd"]),
        prop_oneof![12 => Just(" "), 1 => Just("  "), 1 => Just("\t")],
    )
        .prop_map(|(minute, hour, day, month, weekday, gap)| [minute, hour, day, month, weekday].join(gap));
    let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    (0..EXPRESSIONS).filter_map(|_| Some(expression.new_tree(&mut runner).ok()?.current())).collect()
}
