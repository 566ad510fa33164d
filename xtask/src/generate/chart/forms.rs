//! Forms of texts in a chart's values, as Helm's schemas can say them: what no program and no API server would take is
//! refused with the name of the value, before anything is installed.
//!
//! A pattern has no look-ahead, in any version of Helm. Each is held against the reader of the text in the tests.

use serde_json::{Value, json};

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
/// An amount above nothing, small enough for 2^63-1.
const AMOUNT: &str = r"\+?([1-9][0-9]{0,17}(\.[0-9]*)?[num]?|([1-9][0-9]{0,5}(\.[0-9]*)?|0?\.[0-9]*[1-9][0-9]*)([numkMGT]|[KMGT]i)?|[1-9][0-9]{0,2}(\.[0-9]*)?(P|Pi)|[1-9][0-9]{0,8}(\.[0-9]*)?[eE][+-]?0?[0-9]|[1-9](\.[0-9]*)?[eE]\+?1[0-7])";
const NOTHING: &str = r"\+?0+(\.0*)?([numkMGTPE]|[KMGTPE]i)?";

/// A text that is empty or of this form.
fn perhaps(form: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^({form})?$") })
}

fn bounded(form: &str, most: u64) -> Value {
    json!({ "type": "string", "pattern": format!("^({form})$"), "maxLength": most })
}

/// A namespace, or another name of one label.
pub(super) fn label_name() -> Value {
    bounded(LABEL, 63)
}

/// The name of an object.
pub(super) fn object_name() -> Value {
    bounded(&format!(r"{LABEL}(\.{LABEL})*"), 253)
}

/// The name of an object, or nothing.
pub(super) fn perhaps_object_name() -> Value {
    json!({ "type": "string", "pattern": format!(r"^({LABEL}(\.{LABEL})*)?$"), "maxLength": 253 })
}

/// References to objects, as Kubernetes writes them.
pub(super) fn references() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object", "required": ["name"], "additionalProperties": false,
            "properties": { "name": object_name() },
        },
    })
}

/// A service account, with or without its namespace.
pub(super) fn account() -> Value {
    bounded(&format!(r"({LABEL}/)?{LABEL}(\.{LABEL})*"), 317)
}

const HOST: &str =
    r"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:.]+\])(:[0-9]+)?";
const COMPONENT: &str = r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*";

/// A name; the first of several parts is a registry where it has a dot.
fn image_form() -> String {
    let folder = COMPONENT.replace(r"\.|", "");
    format!("(({HOST}|{folder})/{COMPONENT}(/{COMPONENT})*|{COMPONENT})")
}

const TAG: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";

/// The name of an image without tag and digest.
pub(super) fn image_name() -> Value {
    bounded(&image_form(), 255)
}

/// A tag, or nothing.
pub(super) fn tag() -> Value {
    perhaps(TAG)
}

/// An image with or without tag and digest, or nothing.
pub(super) fn image() -> Value {
    perhaps(&format!("{}(:{TAG})?(@sha256:[0-9a-f]{{64}})?", image_form()))
}

/// An upper bound, or none. Numbers may stand without quotes.
pub(super) fn limit() -> Value {
    json!({
        "type": ["string", "number"], "pattern": format!("^({AMOUNT})?$"),
        "exclusiveMinimum": 0, "maximum": 9_000_000_000_000_000_000_u64,
    })
}

/// What is asked for, or nothing.
pub(super) fn request() -> Value {
    json!({
        "type": ["string", "number"], "pattern": format!("^({AMOUNT}|{NOTHING})?$"),
        "minimum": 0, "maximum": 9_000_000_000_000_000_000_u64,
    })
}

fn amounts(amount: &str) -> Value {
    let one = format!(" *(cpu|memory|ephemeral-storage)=({amount})? *");
    perhaps(&format!("{one}(,{one})*"))
}

/// Upper bounds by resource, as `cpu=…,memory=…`.
pub(super) fn limits() -> Value {
    amounts(AMOUNT)
}

/// What is asked for by resource, in the same form.
pub(super) fn requests() -> Value {
    amounts(&format!("{AMOUNT}|{NOTHING}"))
}

/// What is logged: levels, of the program or of a module.
pub(super) fn log_levels() -> Value {
    let one = r" *([A-Za-z0-9_:-]*(\[[^\]]*\])?=)?(off|error|warn|info|debug|trace) *";
    json!({ "type": "string", "pattern": format!("^{one}(,{one})*$") })
}

/// A range of addresses.
pub(super) fn range() -> Value {
    let form = r"([0-9]{1,3}\.){3}[0-9]{1,3}/([12]?[0-9]|3[0-2])|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/([1-9]?[0-9]|1[01][0-9]|12[0-8])";
    json!({ "type": "string", "pattern": format!("^({form})$") })
}

/// A time, as Prometheus writes it.
pub(super) fn interval() -> Value {
    json!({ "type": "string", "pattern": "^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 1 })
}

const LABEL_KEY: &str =
    r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";

/// Text by names of this form. Not `propertyNames`: Helm's validator names another value then.
fn texts(key: &str, text: &Value) -> Value {
    json!({ "type": "object", "patternProperties": { format!("^{key}$"): text }, "additionalProperties": false })
}

/// Labels.
pub(super) fn labels() -> Value {
    let text = json!({
        "type": "string", "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", "maxLength": 63,
    });
    texts(LABEL_KEY, &text)
}

/// Annotations, whose names may have capital letters before the `/` too.
pub(super) fn annotations() -> Value {
    let key = LABEL_KEY.replacen("[a-z0-9]([-a-z0-9]*[a-z0-9])?", "[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?", 2);
    texts(&key, &json!({ "type": "string" }))
}

#[cfg(test)]
mod tests {
    use agents_core::{image, name::is_object_name, plan::bounds::parse_amounts, quantity::Quantity};
    use regex::Regex;

    use super::*;

    fn takes(schema: &Value) -> impl Fn(&str) -> bool + use<> {
        let pattern = Regex::new(schema["pattern"].as_str().unwrap()).unwrap();
        let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        move |text| pattern.is_match(text) && text.len() as u64 <= most
    }

    /// Every text of up to so many of these pieces.
    fn texts(pieces: &[&str], most: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..most {
            last = last.iter().flat_map(|text| pieces.iter().map(move |piece| format!("{text}{piece}"))).collect();
            all.extend(last.clone());
        }
        all
    }

    #[test]
    fn amounts_are_those_that_the_controller_reads() {
        let (limit, request) = (takes(&limit()), takes(&request()));
        let pieces = ["0", "7", ".", "m", "k", "Ki", "i", "e", "E", "-", "+", "99999", "T", "P", " "];
        for text in texts(&pieces, 4).iter().filter(|text| !text.is_empty()) {
            let read = text.parse::<Quantity>().ok().filter(|read| !read.is_negative());
            assert!(!limit(text) || read.is_some_and(|read| !read.is_zero()), "{text}");
            assert!(!request(text) || read.is_some(), "{text}");
        }
        for good in
            ["1", "1.5Gi", "500m", ".5", "0.1", "1e9", "2E3", "10Gi", "21474836480", "1e+09", "2e10", "1G", "+1"]
        {
            assert!(limit(good) && request(good), "{good}");
        }
        assert!(limit("") && request("") && request("0") && request("0Gi") && !limit("0"));
        let (limits, requests) = (takes(&limits()), takes(&requests()));
        for text in texts(&["cpu", "memory", "gpu", "=", "1", "0", "Gi", "GiB", ",", " "], 5) {
            let read = parse_amounts(&text).is_ok_and(|read| read.values().all(|amount| !amount.is_zero()));
            assert!(!limits(&text) || read, "{text}");
            assert!(!requests(&text) || parse_amounts(&text).is_ok(), "{text}");
        }
        for good in ["", "cpu=1", "cpu=,memory=1Gi", "cpu=10m, memory=16Mi,ephemeral-storage=64Mi"] {
            assert!(limits(good) && requests(good), "{good}");
        }
        assert!(requests("cpu=0") && !limits("cpu=0"));
    }

    #[test]
    fn images_are_those_that_the_controller_takes() {
        let (any, name, tag) = (takes(&image()), takes(&image_name()), takes(&tag()));
        let digest = format!("@sha256:{}", "0".repeat(64));
        for text in
            texts(&["a", "A", ".", "-", "_", "/", ":", "1", "@", &digest], 5).iter().filter(|text| !text.is_empty())
        {
            assert!(!any(text) || image::problem(text).is_none(), "{text}");
            assert!(!name(text) || image::problem(&format!("{text}:1{digest}")).is_none(), "{text}");
            assert!(!tag(text) || image::problem(&format!("a:{text}")).is_none(), "{text}");
        }
        for good in
            ["a", "a/b", "registry.example:5000/a/b-c.d__e", "localhost/a", "Registry.example/a", "[::1]:5000/a"]
        {
            assert!(name(good) && any(good) && any(&format!("{good}:v1{digest}")), "{good}");
        }
        assert!(any("") && tag("") && !name(""));
        assert!(!name("a.b_c/d") && name("b_c/d") && name("a.b_c"));
    }

    #[test]
    fn names_are_those_of_objects() {
        let (name, perhaps, label) = (takes(&object_name()), takes(&perhaps_object_name()), takes(&label_name()));
        for text in texts(&["a", "1", "A", ".", "-", "/", "_"], 5) {
            assert_eq!(name(&text), is_object_name(&text), "{text}");
            assert_eq!(perhaps(&text), text.is_empty() || is_object_name(&text), "{text}");
            assert_eq!(label(&text), is_object_name(&text) && !text.contains('.'), "{text}");
        }
        assert!(name(&"a".repeat(253)) && !name(&"a".repeat(254)) && !label(&"a".repeat(64)));
    }
}
