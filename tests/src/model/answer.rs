//! Decides what one request gets: a script, a request and how often the session asked for this turn in; an answer as
//! data out. No socket and no clock.

use std::num::NonZeroU16;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::script::{Call, Conversation, Cut, ErrorStatus, Item, Misbehaviour, Nothing, Pace, Turn, call_id};
use super::wire::{self, Request};

/// What goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// An HTTP error with a JSON body.
    Error {
        /// The HTTP status.
        status: u16,
        /// The `Retry-After` header, in seconds.
        retry_after: Option<NonZeroU16>,
        /// The body.
        body: Value,
    },
    /// A stream of server-sent events.
    Stream(Vec<Step>),
}

/// One step of a stream; after the last the body ends in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Send an event.
    Send(String),
    /// Wait.
    Pause(Duration),
    /// Send nothing more and keep the connection.
    Hang,
    /// Break the connection.
    Abort,
    /// Send the same event for ever.
    Repeat(String, Duration),
}

/// What was decided, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The turn of the script.
    Turn,
    /// A fault of the script, by the name it has there.
    Fault(&'static str),
    /// The key is not the one that the conversation accepts.
    Unauthorized,
    /// Not a request that the script has an answer to; the text says why. A test that sees one is wrong, or the agent
    /// has changed its ways.
    Refused(String),
}

/// The arguments by which an agent's shell tool runs a command line; `None` when the tool is no shell.
fn shell_arguments(tool: &str, line: &str) -> Option<Value> {
    match tool {
        "exec_command" => Some(json!({"cmd": line})),
        "shell_command" => Some(json!({"command": line})),
        "shell" => Some(json!({"command": ["sh", "-c", line]})),
        "bash" => Some(json!({"command": line, "description": "Runs a step of the script"})),
        _ => None,
    }
}

/// The answer to the request that asks for `turn` of `conversation` for the time `attempt` (from 0).
pub fn answer(name: &str, turn: usize, spec: &Turn, attempt: u32, request: &Request) -> (Answer, Outcome) {
    let Turn { items, usage, faults: _ } = spec;
    let rendered = items.iter().enumerate().map(|(index, item)| render(turn, index, item, request));
    let items: Vec<Value> = match rendered.collect() {
        Ok(items) => items,
        Err(reason) => return refuse(400, "tool_not_offered", reason),
    };
    let response = format!("resp_{name}_{turn}");
    let stream = |events: Vec<String>| events.into_iter().map(Step::Send).collect::<Vec<_>>();
    let whole = || whole(&response, &items, *usage);
    let Some(fault) = spec.fault(attempt) else {
        return (Answer::Stream(stream(whole())), Outcome::Turn);
    };
    let begun = || vec![Step::Send(wire::created(&response))];
    match fault {
        Misbehaviour::Status(ErrorStatus { code, retry_after_seconds, error, message }) => {
            let body = wire::error_body(error, message);
            let answer = Answer::Error { status: *code, retry_after: *retry_after_seconds, body };
            (answer, Outcome::Fault("status"))
        }
        Misbehaviour::Failed(failure) => {
            let mut steps = begun();
            steps.push(Step::Send(wire::failed(&response, failure)));
            (Answer::Stream(steps), Outcome::Fault("failed"))
        }
        Misbehaviour::Cut(Cut { after_items, abort }) => {
            let mut steps = begun();
            let done = items.iter().take(*after_items).enumerate();
            steps.extend(done.map(|(index, item)| Step::Send(wire::item_done(index, item))));
            if let Some(item) = items.get(*after_items) {
                steps.extend(stream(half(*after_items, item)));
            }
            if *abort {
                steps.push(Step::Abort);
            }
            (Answer::Stream(steps), Outcome::Fault("cut"))
        }
        Misbehaviour::Slow(Pace { every_millis }) => {
            let pause = Step::Pause(Duration::from_millis(every_millis.get()));
            let paced = whole().into_iter().flat_map(|event| [pause.clone(), Step::Send(event)]);
            (Answer::Stream(paced.collect()), Outcome::Fault("slow"))
        }
        Misbehaviour::Silent(Nothing {}) => {
            let mut steps = begun();
            steps.push(Step::Hang);
            (Answer::Stream(steps), Outcome::Fault("silent"))
        }
        Misbehaviour::Endless(Pace { every_millis }) => {
            let mut steps = begun();
            let item = wire::message(&item_id(turn, 0), "");
            steps.push(Step::Send(wire::item_added(0, &item)));
            let delta = wire::text_delta(0, &item_id(turn, 0), "and so on ");
            steps.push(Step::Repeat(delta, Duration::from_millis(every_millis.get())));
            (Answer::Stream(steps), Outcome::Fault("endless"))
        }
    }
}

/// A key that the conversation does not accept gets what the real endpoint says.
pub fn authorize(conversation: &Conversation, bearer: Option<&str>) -> Result<(), (Answer, Outcome)> {
    match (conversation.bearer.as_deref(), bearer) {
        (None, _) => Ok(()),
        (Some(right), Some(given)) if right == given => Ok(()),
        (Some(_), _) => {
            let body = wire::error_body("invalid_api_key", "Incorrect API key provided.");
            Err((Answer::Error { status: 401, retry_after: None, body }, Outcome::Unauthorized))
        }
    }
}

/// A request that the script has no answer to.
pub fn refuse(status: u16, error: &str, reason: String) -> (Answer, Outcome) {
    let body = wire::error_body(error, &reason);
    (Answer::Error { status, retry_after: None, body }, Outcome::Refused(reason))
}

fn whole(response: &str, items: &[Value], usage: super::script::Usage) -> Vec<String> {
    let mut events = vec![wire::created(response)];
    events.extend(items.iter().enumerate().map(|(index, item)| wire::item_done(index, item)));
    events.push(wire::completed(response, usage));
    events
}

/// The beginning of an item, without its end.
fn half(index: usize, item: &Value) -> Vec<String> {
    let mut begun = item.clone();
    if item["type"] == "message" {
        let text = item["content"][0]["text"].as_str().unwrap_or_default();
        let first = text.split_inclusive(' ').next().unwrap_or_default();
        begun["content"] = json!([]);
        let id = item["id"].as_str().unwrap_or_default();
        vec![wire::item_added(index, &begun), wire::text_delta(index, id, first)]
    } else {
        begun["arguments"] = "".into();
        vec![wire::item_added(index, &begun)]
    }
}

fn render(turn: usize, index: usize, item: &Item, request: &Request) -> Result<Value, String> {
    let offered = request.tool_names();
    let absent = |wanted: &str| format!("the script calls {wanted}, the agent offers {}", offered.join(", "));
    let id = item_id(turn, index);
    match item {
        Item::Message(text) => Ok(wire::message(&id, text)),
        Item::Shell(line) => {
            let found = offered.iter().find_map(|tool| Some((tool, shell_arguments(tool, line)?)));
            let (tool, arguments) = found.ok_or_else(|| absent("a shell tool"))?;
            Ok(wire::function_call(&id, &call_id(turn, index), tool, &arguments))
        }
        Item::Call(Call { tool, arguments }) if offered.contains(&tool.as_str()) => {
            Ok(wire::function_call(&id, &call_id(turn, index), tool, arguments))
        }
        Item::Call(Call { tool, arguments: _ }) => Err(absent(tool)),
    }
}

fn item_id(turn: usize, index: usize) -> String {
    format!("item_{turn}_{index}")
}
