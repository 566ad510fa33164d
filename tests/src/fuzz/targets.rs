//! What must hold for any bytes. Each function panics where it does not.

use std::time::Duration;

use agents_core::{
    api::{agent_provider::UsageParser, agent_run::GitCoordinates},
    cron::Cron,
    git,
    name::{ChildName, MAX_CHILD_NAME, SubmissionKey, label_value},
    plan::{RunnerSpec, render_provider, runner_spec::ProviderSpec},
    quantity::Quantity,
    report::{MAX_TERMINATION_MESSAGE, Report},
    schema::Schema,
    timezone,
};
use agents_kube::lint::{Definitions, Options, judge};
use agents_runtime::{
    manifest::Source,
    runner::{spec, untrusted},
    spec_file,
};
use jiff::{Timestamp, tz::TimeZone};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// CPU time of one input, in a build without optimisation: far above what any may need there, far below what an input
/// without a bound takes.
const MOST_CPU: Duration = Duration::from_secs(10);

thread_local! {
    static DEFINITIONS: Definitions = Definitions::new();
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// The source of an argument, over values that are large. Whatever it is, it renders at a bounded cost or is refused.
pub(super) fn templates(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let provider = json!({
        "binary": "x", "argsTemplate": [source, "{{ run.name }}"], "envTemplate": {"X": source},
        "inputFiles": [{"path": "/workspace/x", "content": source}],
    });
    let spec = json!({
        "provider": "p", "run": {"name": "r"}, "inputs": {"a": "1", "b": "{{ run.name }}"},
        "payloads": {"p": "xy ".repeat(40 * 1024), "l": "x\n".repeat(1900)}, "implementation": {"text": "Look.\n{% raw %}", "summary": "s"},
    });
    let provider: ProviderSpec = serde_json::from_value(provider).unwrap();
    let spec: RunnerSpec = serde_json::from_value(spec).unwrap();
    let began = cpu();
    match render_provider(&provider, &spec) {
        Ok(rendered) => {
            let total: usize =
                rendered.args.iter().chain(rendered.env.iter().map(|(_, text)| text)).map(String::len).sum();
            assert!(total <= 4 * 1024 * 1024, "{total} bytes");
            assert_eq!(rendered.args[1], "r", "one template changed another");
        }
        Err(errors) => assert!(!errors.is_empty() && errors.iter().all(|error| !error.to_string().is_empty())),
    }
    let took = cpu() - began;
    assert!(took < MOST_CPU, "it took {took:?}");
}

/// A file with a spec, packed or as JSON. What is accepted says whose it is, and so does what is not.
pub(super) fn runner_specs(bytes: &[u8]) {
    let Ok(json) = spec_file::decode(bytes) else { return };
    assert!(json.len() <= spec_file::MAX_SPEC_BYTES);
    let saved = spec::salvage(&json);
    match spec::verify(&json, None) {
        Ok(verified) => {
            assert_eq!(saved.provider, verified.spec.provider);
            assert_eq!(saved.run, verified.spec.run);
            assert!(!verified.provider.binary.is_empty() && verified.digest.starts_with("sha256:"));
            let _ = render_provider(&verified.provider, &verified.spec);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A status file or a termination message. What is read fits a status and a message, and stays readable.
pub(super) fn reports(bytes: &[u8]) {
    let Ok(report) = serde_json::from_slice::<Report>(bytes) else { return };
    let bounded = report.clone().bounded();
    assert_eq!(bounded.clone().bounded(), bounded, "a bounded report is bounded");
    let _ = report.known_reason();
    let message = bounded.termination_message();
    assert!(message.len() <= MAX_TERMINATION_MESSAGE, "{} bytes", message.len());
    if !message.is_empty() {
        let back: Report = serde_json::from_str(&message).unwrap();
        assert_eq!((back.attempt, back.exit_code), (bounded.attempt, bounded.exit_code));
    }
}

/// Output of a provider: the same is read however it comes, and no figure is below nothing.
pub(super) fn usage_lines(bytes: &[u8]) {
    let whole = untrusted::usage(UsageParser::CodexJson, [bytes]);
    let (front, back) = bytes.split_at(bytes.len() / 3);
    assert_eq!(untrusted::usage(UsageParser::CodexJson, [front, back]), whole, "a cut changes what is read");
    assert_eq!(untrusted::usage(UsageParser::CodexJson, bytes.chunks(7)), whole, "cuts change what is read");
    let (usage, conversation) = whole;
    assert!(conversation.is_none_or(|id| id.len() <= 256));
    if let Some(usage) = usage {
        let figures = serde_json::to_value(usage).unwrap();
        assert!(
            figures.as_object().unwrap().values().all(|figure| figure.as_i64().is_none_or(|n| n >= 0)),
            "{figures}"
        );
    }
}

/// Address, ref and folder, a line each. What may reach git is no option, no program, and stays inside.
pub(super) fn git_coordinates(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(3, '\n').map(str::to_owned);
    let git = GitCoordinates { url: lines.next().unwrap_or_default(), reference: lines.next(), path: lines.next() };
    let Ok(git::Coordinates { public_url: public, folder, .. }) = git::check(&git) else { return };
    let schemes = ["https://", "http://", "ssh://", "git://", "file://"];
    assert!(schemes.iter().any(|scheme| git.url.starts_with(scheme)) || git.url.contains('@'), "{}", git.url);
    // As git finds the name of a helper program.
    let rest = git.url.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    assert!(!rest.starts_with("::"), "{} names a program", git.url);
    for text in [Some(&git.url), git.reference.as_ref()].into_iter().flatten() {
        assert!(!text.is_empty() && !text.starts_with('-') && !text.chars().any(char::is_control), "{text:?}");
    }
    if git.url.starts_with("http://") || git.url.starts_with("https://") {
        let authority = public.split_once("://").unwrap().1.split(['/', '?', '#']).next().unwrap();
        assert!(!authority.contains('@'), "a report names the user: {public}");
    }
    assert!(
        folder.iter().all(|part| !matches!(part.as_str(), "" | "." | "..") && !part.contains(['/', '\0'])),
        "{folder:?}"
    );
}

/// A file of manifests. What cannot be judged is said, never passed.
pub(super) fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source::Text { name: "stdin".to_owned(), folder: "/".into(), text: text.to_owned() };
    let began = cpu();
    if let Ok(report) = DEFINITIONS.with(|definitions| judge(definitions, &[source], Options { partial: true })) {
        assert!(report.objects > 0 || !report.findings.is_empty(), "nothing was judged and nothing was said");
        assert!(
            report.findings.iter().all(|finding| finding.fault.file == "stdin" && !finding.fault.problem.is_empty())
        );
    }
    let took = cpu() - began;
    assert!(took < MOST_CPU, "it took {took:?}");
}

/// Names of children and label values: always valid, never those of another.
pub(super) fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (run, uid) = text.split_once('\n').unwrap_or((&text, ""));
    let label = |name: &str| {
        !name.is_empty()
            && name.len() <= MAX_CHILD_NAME
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-')
    };
    let name = ChildName::of(run, &SubmissionKey::of_attempt(uid, 1));
    let beside = name.beside("spec");
    assert!(label(name.as_str()) && label(beside.as_str()) && beside != name, "{name} {beside}");
    assert_ne!(name, ChildName::of(run, &SubmissionKey::of_attempt(uid, 2)));
    let value = label_value(run);
    assert!(value.len() <= MAX_CHILD_NAME);
    assert_eq!(label_value(&value), value, "a label value is one");
}

/// A schema and a value: admitted or refused by its place, and looked at for a bounded time.
pub(super) fn schemas(bytes: &[u8]) {
    let Ok((schema, value)) = serde_json::from_slice::<(serde_json::Map<String, Value>, Value)>(bytes) else { return };
    let began = cpu();
    match Schema::read(&schema) {
        Ok(schema) => {
            if let Some(problem) = schema.problem(&value) {
                assert!(!problem.text.is_empty() && problem.text.len() <= 1024, "{problem:?}");
            }
        }
        Err(problem) => assert!(!problem.text.is_empty() && problem.text.len() <= 1024, "{problem:?}"),
    }
    let took = cpu() - began;
    assert!(took < MOST_CPU, "it took {took:?}");
}

/// Quantities, cron expressions, durations and time zones: read or refused, and read back the same.
pub(super) fn amounts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        let back: Quantity = quantity.to_string().parse().unwrap();
        assert_eq!(back, quantity, "{text:?} became {quantity}");
    }
    if let Ok(cron) = Cron::parse(text) {
        let after = Timestamp::UNIX_EPOCH;
        assert!(cron.next_after(after, &TimeZone::UTC, after).is_none_or(|next| next > after), "{text:?} stands still");
    }
    let _ = timezone::find(text);
}
