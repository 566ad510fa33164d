//! The scripted model without an agent: the rules of scripts, and what a bare HTTP client gets.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use agents_tests::model::script::{Call, Conversation, Fault, Item, Turn, Usage, call_id};
use agents_tests::model::wire::History;
use agents_tests::model::{ModelServer, Outcome, Script};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Reached only by a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn request(model: &str, input: &Value) -> String {
    let shell = json!({"type": "function", "name": "exec_command"});
    json!({"model": model, "stream": true, "prompt_cache_key": "one", "input": input, "tools": [shell]}).to_string()
}

async fn open(server: &ModelServer, path: &str, key: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut head = format!("POST {path} HTTP/1.1\r\nHost: model\r\nConnection: close\r\n");
    write!(head, "Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

/// The whole response, headers in front.
async fn ask(server: &ModelServer, path: &str, key: &str, body: &str) -> String {
    let mut response = Vec::new();
    open(server, path, key, body).await.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

async fn serve(script: &str) -> ModelServer {
    ModelServer::start(Script::ready(script).unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_created_items_and_completed() {
    let server = serve("edit-and-commit").await;
    let response = ask(&server, "/v1/responses", "any", &request("edit-and-commit", &json!([]))).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-type: text/event-stream"), "{response}");
    let events: Vec<Value> = response
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    insta::assert_json_snapshot!(events);
}

#[tokio::test]
async fn a_request_that_the_script_has_no_answer_to_is_refused_and_says_why() {
    let server = serve("edit-and-commit").await;
    let good = request("edit-and-commit", &json!([]));
    let unstreamed = good.replace("\"stream\":true", "\"stream\":false");
    let toolless = good.replace("exec_command", "look_up");
    let said = "The note is committed; nothing is left to do.";
    let outputs = (0..2).map(|turn| json!({"type": "function_call_output", "call_id": call_id(turn, 0)}));
    let messages = ["Added the review note to NOTES.md and committed it.", said].map(
        |text| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}),
    );
    let ended = request("edit-and-commit", &outputs.chain(messages).collect());
    for (path, body, status, reason) in [
        ("/v1/responses", "{", 400, "not a request"),
        ("/v1/responses", &unstreamed, 400, "stream: only true is served"),
        ("/v1/responses", &toolless, 400, "the script calls a shell tool, the agent offers look_up"),
        ("/v1/responses", &ended, 400, "edit-and-commit has no further turn"),
        ("/another/v1/responses", &good, 404, "the script has the conversations edit-and-commit"),
    ] {
        let response = ask(&server, path, "any", body).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{path} {body}: {response}");
        assert!(response.contains(reason), "{path} {body}: {response}");
    }
    let refused = |request: &Outcome| matches!(request, Outcome::Refused(_));
    assert!(server.requests().iter().all(|request| refused(&request.outcome)));
}

#[tokio::test]
async fn only_the_right_key_is_accepted() {
    let server = serve("faults").await;
    let body = request("rejected-key", &json!([]));
    let wrong = ask(&server, "/v1/responses", "sk-wrong", &body).await;
    assert!(wrong.starts_with("HTTP/1.1 401 ") && wrong.contains("invalid_api_key"), "{wrong}");
    let right = ask(&server, "/v1/responses", "sk-the-right-one", &body).await;
    assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back_and_counts_per_session() {
    let server = serve("faults").await;
    let body = request("rate-limited-once", &json!([]));
    let other = body.replace("\"one\"", "\"two\"");
    for body in [&body, &other] {
        let first = ask(&server, "/v1/responses", "any", body).await;
        assert!(first.starts_with("HTTP/1.1 429 ") && first.contains("retry-after: 1"), "{first}");
        let second = ask(&server, "/v1/responses", "any", body).await;
        assert!(second.starts_with("HTTP/1.1 200 "), "{second}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = serve("edit-and-commit").await;
    let response = ask(&server, "/v1/responses", "any", &" ".repeat((16 << 20) + 1)).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

#[tokio::test]
async fn an_endless_stream_ends_with_the_server() {
    let server = serve("faults").await;
    let mut stream = open(&server, "/v1/responses", "any", &request("endless", &json!([]))).await;
    let mut begun = vec![0; 2_000];
    stream.read_exact(&mut begun).await.unwrap();
    assert!(String::from_utf8_lossy(&begun).matches("response.output_text.delta").count() > 1);
    drop(server);
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut begun)).await.expect("an end").unwrap();
    assert!(!String::from_utf8(begun).unwrap().contains("response.completed"));
}

#[test]
fn a_script_that_breaks_a_rule_names_the_field() {
    let turn = |turn: &str| format!("conversations: {{c: {{turns: [{turn}]}}}}");
    let fault = |answer: &str| turn(&format!("{{items: [message: m], faults: [{{answer: {answer}}}]}}"));
    for (text, field) in [
        ("conversations: {}".to_owned(), "conversations: at least one"),
        ("conversations: {c: {turns: []}}".to_owned(), "conversations.c: turns: at least one"),
        (turn("{items: []}"), "conversations.c: turns[0]: items: at least one"),
        (turn("{items: [message: m]}, {items: [message: m]}"), "turns[1]: items[0].message"),
        (
            turn(
                "{items: [message: m], usage: {inputTokens: 1, cachedInputTokens: 2, outputTokens: 0, reasoningOutputTokens: 0}}",
            ),
            "usage.cachedInputTokens",
        ),
        (turn("{items: [message: m], faults: [{answer: {silent: {}}}, {answer: {silent: {}}}]}"), "faults[0].times"),
        (fault("{status: {code: 200, error: e, message: m}}"), "faults[0].answer.status.code"),
        (fault("{cut: {afterItems: 1}}"), "faults[0].answer.cut.afterItems"),
        (fault("{slow: {everyMillis: 0}}"), "does not parse"),
        (turn("{items: [message: m], fault: []}"), "unknown field `fault`"),
    ] {
        let error = format!("{:#}", Script::parse(&text).unwrap_err());
        assert!(error.contains(field), "{text}: {error}");
    }
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(Item::Message),
        "[a-z]{1,8}".prop_map(Item::Shell),
        "[a-z]{1,8}".prop_map(|tool| Item::Call(Call { tool, arguments: json!({}) })),
    ]
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let turn = prop::collection::vec(item(), 1..4).prop_map(|items| Turn {
        items,
        usage: Usage::default(),
        faults: Vec::<Fault>::new(),
    });
    prop::collection::vec(turn, 1..6).prop_map(|turns| Conversation { bearer: None, turns })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// An agent that returns the output of every call hears each turn once and in order, whatever part of a turn is
    /// already in its history when it asks again.
    #[test]
    fn an_agent_hears_each_turn_once(conversation in conversation()) {
        let script = Script { conversations: [("c".to_owned(), conversation.clone())].into() };
        let script = Script::parse(&serde_json::to_string(&script).unwrap());
        prop_assume!(script.is_ok());

        let mut history = History { outputs: BTreeSet::new(), said: BTreeSet::new() };
        for (turn, Turn { items, .. }) in conversation.turns.iter().enumerate() {
            // As an agent does: what the model said stands in the history before the outputs of its calls.
            let (said, calls): (Vec<_>, Vec<_>) = items.iter().enumerate().partition(|(_, item)| matches!(item, Item::Message(_)));
            for (index, item) in said.into_iter().chain(calls) {
                prop_assert_eq!(conversation.position(&history), Some(turn));
                match item {
                    Item::Message(text) => history.said.insert(text.clone()),
                    Item::Shell(_) | Item::Call(_) => history.outputs.insert(call_id(turn, index)),
                };
            }
        }
        prop_assert_eq!(conversation.position(&history), None);
    }
}
