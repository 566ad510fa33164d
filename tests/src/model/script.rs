//! Scripts: what the model says in each conversation, and how its endpoint fails. Data and the rules it must keep;
//! nothing here listens or waits.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::History;

/// Scripts that ship with the tests, by name.
const READY: [(&str, &str); 2] = [
    ("edit-and-commit", include_str!("../../agents/scripts/edit-and-commit.yaml")),
    ("faults", include_str!("../../agents/scripts/faults.yaml")),
];

/// Conversations by name. A request picks one by the first path segment (`/NAME/v1/responses`), else by the model it
/// asks for, else takes the only one.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// At least one.
    pub conversations: BTreeMap<String, Conversation>,
}

/// What one agent hears, turn by turn. Any number of agents may have the same conversation at once: a turn is found
/// from the history that a request carries, so a retry gets the same answer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conversation {
    /// The only key accepted; any other gets 401. Absent: every key, and none, is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<String>,
    /// In order; at least one.
    pub turns: Vec<Turn>,
}

/// The answer to one request: what the model says, and what it costs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Turn {
    /// At least one.
    pub items: Vec<Item>,
    /// Tokens reported at the end of the answer.
    #[serde(default)]
    pub usage: Usage,
    /// Given in order in place of the answer, each as many times as it says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// One thing the model says.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Item {
    /// A command line for whichever shell tool the agent offers.
    Shell(String),
    /// A call of a named tool.
    Call(Call),
    /// Text for the user.
    Message(String),
}

/// A call of one of the tools that the request offers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Call {
    /// The tool's name; a request that does not offer it is refused with 400.
    pub tool: String,
    /// The tool's arguments, sent as they stand.
    pub arguments: Value,
}

/// Tokens of one answer. `total` is not written down: it is `input + output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Usage {
    /// All input tokens, the cached ones included.
    pub input_tokens: u64,
    /// The part of the input that the model had cached.
    pub cached_input_tokens: u64,
    /// All output tokens, the reasoning included.
    pub output_tokens: u64,
    /// The part of the output that was reasoning.
    pub reasoning_output_tokens: u64,
}

/// A misbehaviour of the endpoint at one turn.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// How many requests of one session meet it. Absent: all, so only the last fault of a turn may leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<NonZeroU32>,
    /// What they get.
    pub answer: Misbehaviour,
}

/// What a request gets in place of its answer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Misbehaviour {
    /// An HTTP error.
    Status(ErrorStatus),
    /// A stream that begins well and ends with `response.failed`.
    Failed(StreamFailure),
    /// A stream that ends in the middle of an item.
    Cut(Cut),
    /// The right answer, with a pause before every event.
    Slow(Pace),
    /// A stream that begins and then says nothing more.
    Silent(Nothing),
    /// A stream of text that never ends.
    Endless(Pace),
}

/// An HTTP error in the shape of the Responses API.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorStatus {
    /// 400–599.
    pub code: u16,
    /// The `Retry-After` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<NonZeroU16>,
    /// `error.code` and `error.type` of the body, e.g. `insufficient_quota`.
    pub error: String,
    /// `error.message` of the body.
    pub message: String,
}

/// The error inside a `response.failed` event.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamFailure {
    /// `response.error.code`, e.g. `insufficient_quota`.
    pub error: String,
    /// `response.error.message`.
    pub message: String,
}

/// Where and how a stream is cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// Whole items before the one that is cut; fewer than the turn has. The agent acts on a whole item even so.
    #[serde(default)]
    pub after_items: usize,
    /// Break the connection in place of ending the body in order.
    #[serde(default)]
    pub abort: bool,
}

/// Time between two events of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pace {
    /// Milliseconds before each event.
    pub every_millis: NonZeroU64,
}

/// A fault without settings, written `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl Script {
    /// Reads a script from YAML or JSON and checks its rules; an error names the field.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let script: Self = serde_saphyr::from_str(text).context("the script does not parse")?;
        script.check()?;
        Ok(script)
    }

    /// A script that ships with the tests: `edit-and-commit` or `faults`.
    pub fn ready(name: &str) -> anyhow::Result<Self> {
        let (_, text) = READY.iter().find(|(ready, _)| *ready == name).with_context(|| {
            let names: Vec<&str> = READY.iter().map(|(ready, _)| *ready).collect();
            format!("no script is called {name:?}; there are {}", names.join(", "))
        })?;
        Self::parse(text)
    }

    /// The conversation that a request asks for, with its name.
    pub fn conversation(&self, path: Option<&str>, model: &str) -> Option<(&str, &Conversation)> {
        let named = |name: &str| self.conversations.get_key_value(name);
        let found = match path {
            Some(segment) => named(segment),
            None => named(model).or_else(|| self.conversations.iter().next().filter(|_| self.conversations.len() == 1)),
        };
        found.map(|(name, conversation)| (name.as_str(), conversation))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.conversations.is_empty(), "conversations: at least one is needed");
        for (name, conversation) in &self.conversations {
            conversation.check().with_context(|| format!("conversations.{name}"))?;
        }
        Ok(())
    }
}

impl Conversation {
    /// The turn to give to an agent that has this history; `None` when it has had them all.
    ///
    /// A turn with calls is behind when each of its calls has an output, any other when each of its messages was said.
    /// Whatever a cut stream left in the history therefore does not count, unless it was everything the turn had.
    pub fn position(&self, history: &History) -> Option<usize> {
        self.turns.iter().enumerate().position(|(turn, Turn { items, usage: _, faults: _ })| {
            let mut calls = (0..items.len()).filter(|index| items[*index].is_call()).peekable();
            if calls.peek().is_some() {
                !calls.all(|index| history.outputs.contains(&call_id(turn, index)))
            } else {
                !items.iter().all(|item| match item {
                    Item::Message(text) => history.said.contains(text),
                    Item::Shell(_) | Item::Call(_) => true,
                })
            }
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.turns.is_empty(), "turns: at least one is needed");
        let mut said = BTreeSet::new();
        for (index, turn) in self.turns.iter().enumerate() {
            turn.check(&mut said).with_context(|| format!("turns[{index}]"))?;
        }
        Ok(())
    }
}

impl Turn {
    fn check<'a>(&'a self, said: &mut BTreeSet<&'a str>) -> anyhow::Result<()> {
        let Self { items, usage, faults } = self;
        ensure!(!items.is_empty(), "items: at least one is needed");
        for (index, item) in items.iter().enumerate() {
            if let Item::Message(text) = item {
                ensure!(said.insert(text), "items[{index}].message: said before, and a turn is known by its texts");
            }
        }
        let Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
        ensure!(cached_input_tokens <= input_tokens, "usage.cachedInputTokens: is part of inputTokens");
        ensure!(reasoning_output_tokens <= output_tokens, "usage.reasoningOutputTokens: is part of outputTokens");
        for (index, Fault { times, answer }) in faults.iter().enumerate() {
            ensure!(
                times.is_some() || index + 1 == faults.len(),
                "faults[{index}].times: needed, for another fault follows"
            );
            match answer {
                Misbehaviour::Status(ErrorStatus { code, retry_after_seconds: _, error: _, message: _ }) => {
                    ensure!((400..600).contains(code), "faults[{index}].answer.status.code: {code} is no error");
                }
                Misbehaviour::Cut(Cut { after_items, abort: _ }) => ensure!(
                    *after_items < items.len(),
                    "faults[{index}].answer.cut.afterItems: the turn has {} items",
                    items.len()
                ),
                Misbehaviour::Failed(_)
                | Misbehaviour::Slow(_)
                | Misbehaviour::Silent(_)
                | Misbehaviour::Endless(_) => {}
            }
        }
        Ok(())
    }

    /// The fault met by the request number `attempt` (from 0) of a session at this turn.
    pub fn fault(&self, attempt: u32) -> Option<&Misbehaviour> {
        let mut before = 0_u32;
        for Fault { times, answer } in &self.faults {
            before = times.map_or(u32::MAX, |times| before.saturating_add(times.get()));
            if attempt < before {
                return Some(answer);
            }
        }
        None
    }
}

impl Item {
    fn is_call(&self) -> bool {
        match self {
            Self::Shell(_) | Self::Call(_) => true,
            Self::Message(_) => false,
        }
    }
}

/// The id under which an agent returns the output of the call at `turn` and `index`.
pub fn call_id(turn: usize, index: usize) -> String {
    format!("call_{turn}_{index}")
}
