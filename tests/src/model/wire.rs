//! The part of the Responses API that agents use: the fields read from a request and the events of an answer.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::script::{StreamFailure, Usage};

/// The fields of a request that the server reads; the others are left alone.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// The model asked for.
    pub model: String,
    /// The whole history: the endpoint keeps nothing.
    pub input: Vec<Value>,
    /// What the agent lets the model call.
    #[serde(default)]
    pub tools: Vec<Value>,
    /// Must be true: this endpoint only streams.
    #[serde(default)]
    pub stream: bool,
    /// Names the session, the same for every request of a conversation.
    #[serde(default)]
    pub prompt_cache_key: Option<String>,
}

/// What a request's history says about the turns that are over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Ids of the calls that have an output.
    pub outputs: BTreeSet<String>,
    /// Texts that the model said.
    pub said: BTreeSet<String>,
}

/// The output that an agent returned for one call.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallOutput {
    /// The call's id.
    pub call_id: String,
    /// What the agent says that the call gave, as text.
    pub output: String,
}

impl Request {
    /// Names of the function tools offered, in order.
    pub fn tool_names(&self) -> Vec<&str> {
        let functions = self.tools.iter().filter(|tool| tool["type"] == "function");
        functions.filter_map(|tool| tool["name"].as_str()).collect()
    }

    /// What the history holds.
    pub fn history(&self) -> History {
        History {
            outputs: self.outputs().into_iter().map(|CallOutput { call_id, output: _ }| call_id).collect(),
            said: self.messages("assistant").collect(),
        }
    }

    /// The outputs returned so far, in order.
    pub fn outputs(&self) -> Vec<CallOutput> {
        let returned = self.input.iter().filter(|item| item["type"] == "function_call_output");
        returned
            .filter_map(|item| {
                let output = match &item["output"] {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                Some(CallOutput { call_id: item["call_id"].as_str()?.to_owned(), output })
            })
            .collect()
    }

    /// The user's last message: what the agent was told to do.
    pub fn prompt(&self) -> Option<String> {
        self.messages("user").last()
    }

    fn messages(&self, role: &str) -> impl Iterator<Item = String> {
        let of_role = self.input.iter().filter(move |item| item["type"] == "message" && item["role"] == role);
        of_role.map(|item| {
            let parts = item["content"].as_array().map_or(&[][..], Vec::as_slice);
            parts.iter().filter_map(|part| part["text"].as_str()).collect()
        })
    }
}

/// One server-sent event, as its bytes.
fn event(kind: &str, mut fields: Value) -> String {
    fields["type"] = kind.into();
    format!("event: {kind}\ndata: {fields}\n\n")
}

/// Begins every answer.
pub fn created(response: &str) -> String {
    event("response.created", json!({"response": {"id": response}}))
}

/// One whole item.
pub fn item_done(index: usize, item: &Value) -> String {
    event("response.output_item.done", json!({"output_index": index, "item": item}))
}

/// The beginning of an item; a message's text follows in deltas.
pub fn item_added(index: usize, item: &Value) -> String {
    event("response.output_item.added", json!({"output_index": index, "item": item}))
}

/// A piece of a message's text.
pub fn text_delta(index: usize, item_id: &str, text: &str) -> String {
    event(
        "response.output_text.delta",
        json!({"output_index": index, "content_index": 0, "item_id": item_id, "delta": text}),
    )
}

/// Ends an answer and says what it cost.
pub fn completed(response: &str, usage: Usage) -> String {
    let Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_output_tokens } = usage;
    let usage = json!({
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_input_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_output_tokens},
        "total_tokens": input_tokens + output_tokens,
    });
    event("response.completed", json!({"response": {"id": response, "usage": usage}}))
}

/// Ends an answer with an error.
pub fn failed(response: &str, failure: &StreamFailure) -> String {
    let StreamFailure { error, message } = failure;
    let error = json!({"code": error, "message": message});
    event("response.failed", json!({"response": {"id": response, "status": "failed", "error": error}}))
}

/// The item of a message.
pub fn message(id: &str, text: &str) -> Value {
    json!({"type": "message", "id": id, "role": "assistant", "content": [{"type": "output_text", "text": text}]})
}

/// The item of a call; arguments travel as text.
pub fn function_call(id: &str, call_id: &str, tool: &str, arguments: &Value) -> Value {
    json!({"type": "function_call", "id": id, "call_id": call_id, "name": tool, "arguments": arguments.to_string()})
}

/// The body of an HTTP error.
pub fn error_body(error: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": error, "param": null, "code": error}})
}
