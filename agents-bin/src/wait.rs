//! `agents wait`: waits until objects of a cluster are as wanted, says what happens meanwhile, and exits as the runs did.

use std::{process::ExitCode, time::Duration};

use agents_core::{
    api::{AgentRun, Kind, VERSION, agent_run::Phase},
    check::Check,
    hidden::visible,
    kinds::{self, Visitor},
};
use agents_kube::follow::{Follow, FollowError, Seen, title};
use anyhow::{Result, bail};
use jiff::SignedDuration;
use kube::{Client, api::ApiResource, core::GroupVersionKind};
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    cluster::{ClusterArgs, NO_CLUSTER, block_on, complain},
    exit,
    output::{self, Stream},
};

/// No wait is longer.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Arguments of `agents wait`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 when all are as wanted; of a single run that ended otherwise, its provider's, or 130 when it was cancelled; else
1. 124 when the time is over, 2 for usage, cluster, rights, an object that is not there or a run that is a template.
A cluster that has answered once is asked again for as long as it takes.")]
pub(crate) struct Args {
    /// What to wait for: KIND/NAME, or the name of an AgentRun
    #[arg(value_name = "OBJECT", required = true, value_parser = object)]
    objects: Vec<Wanted>,
    /// Condition that is waited for, as TYPE or TYPE=STATUS; without it, Succeeded of a run and Ready of all else
    #[arg(long = "for", value_name = "CONDITION", value_parser = condition)]
    condition: Option<Condition>,
    /// Longest wait, such as 90s, 5m or 1h; without it, as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Namespace of the objects; without it, that of the context
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// An object of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    resource: ApiResource,
    name: String,
}

/// A condition's type and status.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    kind: String,
    status: String,
}

fn object(text: &str) -> Result<Wanted, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("agentrun", text));
    if name.is_empty() || name.contains('/') {
        return Err("KIND/NAME is wanted, such as agentrun/NAME".to_owned());
    }
    let mut search = Search { word: kind.to_lowercase(), found: None };
    kinds::visit(&mut search);
    let resource = search.found.ok_or_else(|| format!("there is no kind {kind}"))?;
    Ok(Wanted { resource, name: name.to_owned() })
}

/// Finds the kind that a word names.
struct Search {
    word: String,
    found: Option<ApiResource>,
}

impl Visitor for Search {
    fn visit<K: Kind + Check>(&mut self) {
        let full = format!("{}.{}", K::PLURAL, K::GROUP);
        let word = self.word.as_str();
        if word == K::SINGULAR || word == K::PLURAL || K::SHORT_NAMES.contains(&word) || word == full {
            let kind = GroupVersionKind::gvk(K::GROUP, VERSION, K::KIND);
            self.found = Some(ApiResource::from_gvk_with_plural(&kind, K::PLURAL));
        }
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let text = text.strip_prefix("condition=").unwrap_or(text);
    let (kind, status) = text.split_once('=').unwrap_or((text, "True"));
    let status = ["True", "False", "Unknown"].into_iter().find(|known| known.eq_ignore_ascii_case(status));
    match status {
        Some(status) if !kind.is_empty() => Ok(Condition { kind: kind.to_owned(), status: status.to_owned() }),
        _ => Err("TYPE or TYPE=STATUS is wanted, with the status True, False or Unknown".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    let parsed = parsed.and_then(|parsed| Duration::try_from(parsed).ok());
    parsed.filter(|parsed| *parsed <= FOREVER).ok_or_else(|| "a time such as 90s, 5m or 1h is wanted".to_owned())
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    AsWanted,
    Otherwise(u8),
    Late,
}

/// Runs the command.
pub(crate) fn main(args: Args) -> ExitCode {
    block_on(async {
        let Args { objects, condition, timeout, namespace, cluster } = args;
        let connection = match cluster.connect().await {
            Ok(connection) => connection,
            Err(error) => return complain(&error, Some(NO_CLUSTER), exit::USAGE),
        };
        let namespace = namespace.unwrap_or(connection.namespace);
        let deadline = Instant::now() + timeout.unwrap_or(FOREVER);
        let mut waits: JoinSet<Result<End>> = objects
            .into_iter()
            .map(|wanted| wait(connection.client.clone(), namespace.clone(), wanted, condition.clone(), deadline))
            .collect();
        let mut ends = Vec::new();
        while let Some(ended) = waits.join_next().await {
            match ended.map_err(anyhow::Error::from).and_then(|ended| ended) {
                Ok(end) => ends.push(end),
                Err(error) => {
                    let hint = match error.downcast_ref() {
                        Some(FollowError::Silence(_)) => NO_CLUSTER,
                        Some(FollowError::NotServed(_)) => {
                            "`agents crds apply` installs the definitions; --context names another cluster"
                        }
                        Some(FollowError::Refused { .. } | FollowError::Ended(_)) | None => {
                            "`kubectl get agents-all` lists what is there"
                        }
                    };
                    return complain(&error, Some(hint), exit::USAGE);
                }
            }
        }
        ExitCode::from(exit_code(&ends))
    })
}

fn exit_code(ends: &[End]) -> u8 {
    if ends.contains(&End::Late) {
        return exit::LATE;
    }
    match ends {
        [End::Otherwise(code)] => *code,
        ends if ends.iter().all(|end| *end == End::AsWanted) => 0,
        _ => exit::NO,
    }
}

async fn wait(
    client: Client,
    namespace: String,
    wanted: Wanted,
    condition: Option<Condition>,
    deadline: Instant,
) -> Result<End> {
    let Wanted { resource, name } = wanted;
    let is_run = resource.kind == AgentRun::KIND;
    let condition = condition.unwrap_or_else(|| Condition {
        kind: if is_run { "Succeeded" } else { "Ready" }.to_owned(),
        status: "True".to_owned(),
    });
    let mut follow = Follow::new(client, &namespace, &resource, &name);
    let title = title(&resource, &name);
    let mut told = String::new();
    loop {
        let seen = tokio::select! {
            // A time that is over at the moment at which the silence counts is over.
            biased;
            () = sleep_until(deadline) => {
                say(&format!("{title}: the time is over; it is {}", if told.is_empty() { "unknown" } else { &told }));
                return Ok(End::Late);
            }
            seen = follow.next() => seen?,
        };
        let object = match seen {
            Seen::Object(object) => object,
            Seen::Absent if told.is_empty() => bail!("there is no {title} in the namespace {namespace}"),
            Seen::Absent => {
                say(&format!("{title}: it was deleted"));
                return Ok(End::Otherwise(exit::NO));
            }
            Seen::Trouble(trouble) => {
                warn(&format!("{title}: {trouble}; it is asked again until it does"));
                continue;
            }
        };
        let status = &object.data["status"];
        let state = state(status);
        if state != told {
            say(&format!("{title}: {state}"));
            told = state;
        }
        let ending = if is_run { ended(status) } else { None };
        // What has ended is not judged anew when its spec changes.
        let generation = object.metadata.generation.filter(|_| ending.is_none());
        if holds(status, generation, &condition) {
            return Ok(End::AsWanted);
        }
        if let Some(code) = ending {
            return Ok(End::Otherwise(code));
        }
        if is_run && status["phase"] == Phase::Template.as_str() {
            bail!("{title} in the namespace {namespace} is a template: it will never run");
        }
    }
}

/// Phase, reason and message in one line.
fn state(status: &Value) -> String {
    let word = |name: &str| status[name].as_str().unwrap_or_default();
    let mut text = match word("phase") {
        "" => "not looked at yet".to_owned(),
        phase => phase.to_owned(),
    };
    if !word("reason").is_empty() {
        text = format!("{text} ({})", word("reason"));
    }
    match word("message").lines().next() {
        Some(message) => format!("{text}: {message}"),
        None => text,
    }
}

/// Whether the condition is as wanted and, as for `kubectl wait`, not of an older generation than this one.
fn holds(status: &Value, generation: Option<i64>, wanted: &Condition) -> bool {
    let Condition { kind, status: truth } = wanted;
    let is_current = |condition: &Value| {
        let observed = condition["observedGeneration"].as_i64().or_else(|| status["observedGeneration"].as_i64());
        observed.is_none_or(|observed| generation.is_none_or(|generation| observed >= generation))
    };
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| {
        condition["type"] == kind.as_str() && condition["status"] == truth.as_str() && is_current(condition)
    })
}

/// The exit code of a run that is over and not as wanted.
fn ended(status: &Value) -> Option<u8> {
    let phase = serde_json::from_value::<Phase>(status["phase"].clone()).ok().filter(|phase| phase.is_terminal())?;
    let last = status["attempts"].as_array().and_then(|attempts| attempts.last());
    let number = |name: &str| last.and_then(|last| i32::try_from(last[name].as_i64()?).ok());
    Some(match exit::of_run(phase, number("exitCode"), number("signal")) {
        // It succeeded, and something else was waited for.
        0 => exit::NO,
        code => code,
    })
}

fn say(line: &str) {
    output::line(Stream::Out, &visible(line));
}

fn warn(line: &str) {
    output::line(Stream::Err, &visible(line));
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_named_as_kubectl_names_them() {
        for text in [
            "hello",
            "agentrun/hello",
            "agentruns/hello",
            "ar/hello",
            "AgentRun/hello",
            "agentruns.agents.proompteng.ai/hello",
        ] {
            let Wanted { resource, name } = object(text).unwrap();
            assert_eq!(
                (resource.plural.as_str(), title(&resource, &name).as_str(), name.as_str()),
                ("agentruns", "agentrun/hello", "hello")
            );
        }
        for text in ["", "agentrun/", "pod/hello", "agentrun/a/b"] {
            assert!(object(text).is_err(), "{text}");
        }
    }

    #[test]
    fn conditions_and_times_are_read_as_kubectl_reads_them() {
        let of = |kind: &str, status: &str| Condition { kind: kind.to_owned(), status: status.to_owned() };
        assert_eq!(condition("Failed"), Ok(of("Failed", "True")));
        assert_eq!(condition("condition=Ready=false"), Ok(of("Ready", "False")));
        assert!(condition("").is_err() && condition("Ready=maybe").is_err());
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-1s").is_err() && duration("soon").is_err() && duration("9999999h").is_err());
    }

    #[test]
    fn the_exit_code_follows_the_run() {
        let failed = |attempt: Value| ended(&json!({ "phase": "Failed", "attempts": [{ "exitCode": 9 }, attempt] }));
        assert_eq!(failed(json!({ "exitCode": 3 })), Some(3));
        assert_eq!(failed(json!({ "signal": 11 })), Some(139));
        assert_eq!(failed(json!({ "exitCode": 0 })), Some(exit::NO), "an output was missing");
        assert_eq!(failed(json!({})), Some(exit::NO));
        assert_eq!(ended(&json!({ "phase": "Cancelled" })), Some(exit::CANCELLED));
        assert_eq!(ended(&json!({ "phase": "Running" })), None);
        assert_eq!(ended(&json!({})), None);
        assert_eq!(exit_code(&[End::AsWanted, End::AsWanted]), 0);
        assert_eq!(exit_code(&[End::Otherwise(3)]), 3);
        assert_eq!(exit_code(&[End::Otherwise(3), End::AsWanted]), exit::NO);
        assert_eq!(exit_code(&[End::Otherwise(3), End::Late]), exit::LATE);
    }

    #[test]
    fn a_line_says_phase_reason_and_message() {
        let status = json!({ "phase": "Pending", "reason": "AgentNotFound", "message": "there is no Agent a\nmore" });
        assert_eq!(state(&status), "Pending (AgentNotFound): there is no Agent a");
        assert_eq!(state(&Value::Null), "not looked at yet");
    }

    #[test]
    fn a_condition_of_an_older_spec_is_unmet() {
        let ready = condition("Ready").unwrap();
        let status = |condition: Option<i64>, status: Option<i64>| {
            let condition = json!({ "type": "Ready", "status": "True", "observedGeneration": condition });
            json!({ "conditions": [condition], "observedGeneration": status })
        };
        assert!(holds(&status(None, None), Some(2), &ready), "nothing says which one was judged");
        assert!(holds(&status(None, Some(2)), Some(2), &ready));
        assert!(!holds(&status(None, Some(1)), Some(2), &ready));
        assert!(!holds(&status(Some(1), Some(2)), Some(2), &ready));
        assert!(holds(&status(Some(2), Some(1)), Some(2), &ready), "the condition knows best");
        assert!(holds(&status(Some(1), Some(1)), None, &ready));
        assert!(!holds(&status(None, None), None, &condition("Ready=False").unwrap()));
        assert!(!holds(&Value::Null, None, &ready));
    }

    /// Address of a cluster that gives each of `answers` once and is gone then.
    fn cluster(answers: &[Value]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Vec<String> = answers.iter().map(Value::to_string).collect();
        if !answers.is_empty() {
            std::thread::spawn(move || answers.iter().for_each(|answer| give(&listener, answer)));
        }
        format!("http://{address}")
    }

    fn give(listener: &std::net::TcpListener, answer: &str) {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
        write!(connection, "{head}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
    }

    async fn wait_at(address: &str, patience: Duration) -> Result<End> {
        // Fails when another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = kube::Config::new(address.parse().unwrap());
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        wait(client, "n".to_owned(), object("a").unwrap(), None, Instant::now() + patience).await
    }

    fn list(phase: &str) -> Value {
        let run = json!({ "metadata": { "name": "a", "resourceVersion": "1" }, "status": { "phase": phase } });
        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": [run] })
    }

    #[tokio::test]
    async fn a_cluster_that_never_answers_ends_the_wait() {
        let error = wait_at(&cluster(&[]), FOREVER).await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(FollowError::Silence(_))), "{error:#}");
        assert!(error.to_string().contains("refuses connections"), "{error:#}");
    }

    #[tokio::test]
    async fn a_cluster_that_has_answered_is_asked_again() {
        assert_eq!(wait_at(&cluster(&[list("Running")]), Duration::from_secs(2)).await.unwrap(), End::Late);
    }

    #[tokio::test]
    async fn a_template_ends_the_wait() {
        let error = wait_at(&cluster(&[list("Template")]), FOREVER).await.unwrap_err();
        assert!(error.to_string().contains("never run"), "{error:#}");
    }
}
