//! Ring 1: attacks of `attacks.yaml` that manifests carry and no server is needed for.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use agents_kube::lint::{Options, Report, lint};
use agents_runtime::manifest::Source;
use agents_tests::{fixtures::kinds, schema};
use anyhow::{Context as _, Result, ensure};
use xtask::workspace;

const PROVIDER: &str = "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {name: p}\nspec: ";
const RUN: &str = "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {name: r}\nspec: ";

/// What the lint says of a text, in how long. On a stack as large as a program's first thread has: builds without
/// optimisation need more than a test's thread has.
fn judged(text: &str) -> (Vec<String>, Duration) {
    let text = text.to_owned();
    let judging = thread::Builder::new().stack_size(8 * 1024 * 1024).spawn(move || judge(&text));
    judging.unwrap().join().unwrap()
}

fn judge(text: &str) -> (Vec<String>, Duration) {
    let source = Source::Text { name: "m.yaml".to_owned(), folder: "/".into(), text: text.to_owned() };
    let began = Instant::now();
    let said = match lint(&[source], Options { partial: true }) {
        Ok(Report { findings, .. }) => {
            findings.into_iter().map(|finding| format!("{} {}", finding.fault.field, finding.fault.problem)).collect()
        }
        Err(error) => vec![error.to_string()],
    };
    (said, began.elapsed())
}

fn says(text: &str, wanted: &[&str]) -> Result<()> {
    let (said, _) = judged(text);
    for wanted in wanted {
        ensure!(said.iter().any(|line| line.contains(wanted)), "{wanted:?} in {said:#?}");
    }
    Ok(())
}

/// No field of a spec names a namespace, but those that say whom a policy is about; so a Secret is always of the run's own.
#[test]
fn no_field_reaches_a_secret_of_another_namespace() -> Result<()> {
    let mut named = BTreeSet::new();
    for row in kinds() {
        schema::fields(&row.schema["properties"]["spec"], &mut |path, _| {
            let last = path.rsplit('.').next().unwrap_or_default();
            if last.to_lowercase().contains("namespace") {
                named.insert(format!("{} {path}", row.kind));
            }
        });
    }
    let reaching: Vec<_> = named.iter().filter(|field| !ELSEWHERE.iter().any(|end| field.ends_with(end))).collect();
    ensure!(reaching.is_empty(), "{reaching:#?}");
    let secret = |inside: &str| format!("{PROVIDER}{{binary: sh, secretEnv: [{{name: TOKEN, key: k, {inside}}}]}}\n");
    says(&secret("secretName: db, namespace: other"), &["spec.secretEnv[0].namespace"])?;
    for name in ["other/db", "../other/db", "db.", "DB", "db prod", "dｂ", "*", "db-*", ""] {
        says(&secret(&format!("secretName: '{name}'")), &["spec.secretEnv[0].secretName"])?;
    }
    let (said, _) = judged(&secret("secretName: db.prod-1"));
    ensure!(said.is_empty(), "{said:?}");
    Ok(())
}

/// Fields with a namespace that reach no Secret: where another engine keeps its own objects, whom a policy is about, and
/// what a schedule makes.
const ELSEWHERE: &[&str] = &[
    "runtime.argo.namespace",
    "runtime.temporal.namespace",
    "Overrides.argo.namespace",
    "Overrides.temporal.namespace",
    "subjects[].namespace",
    "Schedule targetRef.namespace",
];

/// The account of runs is bound to nothing: what their pods could ask the API server for, nobody may give them by a chart.
#[test]
fn no_chart_gives_the_account_of_runs_a_right() -> Result<()> {
    let mut subjects = 0;
    for chart in ["agents", "agents-extras"] {
        for entry in fs::read_dir(workspace().join("charts").join(chart).join("templates"))? {
            let path = entry?.path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            for (_, rest) in text.match_indices("subjects:").map(|(at, _)| text.split_at(at)) {
                let name = rest.lines().find(|line| line.trim_start().starts_with("name:")).unwrap_or_default();
                ensure!(name.trim() == "name: {{ $account | quote }}", "{}: {name}", path.display());
                ensure!(text.contains(r#"$account := include "agents.account" ."#), "{}", path.display());
                subjects += 1;
            }
        }
    }
    ensure!(subjects >= 2, "only {subjects} bindings were seen");
    Ok(())
}

/// Whatever takes a parser long or a machine much memory is refused at once, and what says one thing twice too.
#[test]
fn manifests_that_are_bombs_are_refused_at_once() -> Result<()> {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let all = vec![format!("*a{}", n - 1); 9].join(", ");
        aliases.push_str(&format!("a{n}: &a{n} [{all}]\n"));
    }
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let twice = format!("{PROVIDER}{{binary: sh, binary: bash}}\n");
    for (text, wanted) in [
        (aliases, "cannot be read"),
        (deep("[", "]"), "cannot be read"),
        (deep("{a: ", "}"), "cannot be read"),
        (format!("{RUN}{}\n", deep("{\"a\":", "}")), "cannot be read"),
        ("- ".repeat(100_000), "cannot be read"),
        (twice, "cannot be read"),
        ("a: &a {<<: *a}\n".to_owned(), "cannot be read"),
        (format!("{RUN}{{timeoutSeconds: {}}}\n", "9".repeat(400)), "cannot be read"),
        (format!("{RUN}{{timeoutSeconds: 1e400}}\n"), "cannot be read"),
        (format!("{RUN}{{timeoutSeconds: .nan}}\n"), "cannot be read"),
        (format!("{RUN}{{timeoutSeconds: 18446744073709551616}}\n"), "spec.timeoutSeconds"),
        (format!("{RUN}{{timeoutSeconds: -1}}\n"), "spec.timeoutSeconds"),
    ] {
        let head: String = text.chars().take(60).collect();
        let (said, took) = judged(&text);
        ensure!(said.iter().any(|line| line.contains(wanted)), "{head}: {wanted:?} in {said:?}");
        ensure!(took.as_secs() < 20, "{head}: {took:?}");
    }
    Ok(())
}

/// An output is known by its run and one path segment; nothing else can be its name.
#[test]
fn names_of_outputs_are_one_segment_each_and_no_two_alike() -> Result<()> {
    let run = |outputs: &str| {
        format!("{RUN}{{agentRef: {{name: a}}, implementationSpecRef: {{name: i}}, outputs: [{outputs}]}}\n")
    };
    says(&run("{name: report}, {name: report, path: other}"), &["spec.outputs[1].name"])?;
    for name in ["..", ".", "a/b", "/etc/passwd", "", &"x".repeat(10_000)] {
        says(&run(&format!("{{name: '{name}'}}")), &["spec.outputs[0].name"])?;
    }
    for path in ["../report", "a/../../b", "/etc/passwd"] {
        says(&run(&format!("{{name: report, path: '{path}'}}")), &["spec.outputs[0].path"])?;
    }
    // Kept as it is: it is no key outside of its run.
    let (said, _) = judged(&run("{name: 'größe-😀'}"));
    ensure!(!said.iter().any(|line| line.contains("outputs")), "{said:?}");
    Ok(())
}

/// Neither broken nor overlong UTF-8 is read as anything.
#[test]
fn bytes_that_are_no_text_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (n, bytes) in [&b"\xff\xfe"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"].iter().enumerate()
    {
        let path = folder.path().join(format!("{n}.yaml"));
        fs::write(&path, [PROVIDER.as_bytes(), b"{binary: 'x", bytes, b"'}\n"].concat())?;
        let report = lint(&[Source::Path(path)], Options { partial: true })?;
        let problems: Vec<_> = report.findings.iter().map(|finding| finding.fault.problem.as_str()).collect();
        ensure!(problems == ["is not UTF-8 text"], "{problems:?}");
    }
    Ok(())
}
