//! The digest of a plan: what an approval is bound to and what the runner verifies.
//!
//! It covers templates, resolved values and the pod. It leaves out what differs between two attempts of one plan and
//! what belongs to the place it runs in: the attempt's number, its limits, file locations, report addresses.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Members of the runner's spec that the digest leaves out.
const LEFT_OUT: &[&[&str]] =
    &[&["planDigest"], &["run", "attempt"], &["limits"], &["artifacts"], &["roots"], &["observability"]];

/// `sha256:` and 64 hexadecimal digits over `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&sha256_bytes(bytes)))
}

/// The hash of `bytes`.
pub fn sha256_bytes(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Two hexadecimal digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digest of a runner's spec, computed on its JSON rather than on our types, so that a runner of another version
/// that does not know a field still computes the same.
pub fn of_runner_spec(spec: &Value) -> String {
    let mut spec = spec.clone();
    for path in LEFT_OUT {
        remove(&mut spec, path);
    }
    of_json(&spec)
}

/// The digest of any JSON value: object members in the order of their names, no white space.
pub fn of_json(value: &Value) -> String {
    let mut text = Vec::new();
    write_canonical(value, &mut text);
    sha256(&text)
}

/// Sorts members itself: whether `serde_json` keeps insertion order depends on features of the whole build.
fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => write_scalar(value, out),
        Value::Array(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (n, (name, member)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                write_scalar(name, out);
                out.push(b':');
                write_canonical(member, out);
            }
            out.push(b'}');
        }
    }
}

fn write_scalar(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // Writing to memory cannot fail, and neither can a scalar.
    let _ = serde_json::to_writer(out, value);
}

fn remove(value: &mut Value, path: &[&str]) {
    let Some(object) = value.as_object_mut() else { return };
    match path {
        [] => {}
        [last] => {
            object.remove(*last);
        }
        [first, rest @ ..] => {
            if let Some(child) = object.get_mut(*first) {
                remove(child, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attempt_does_not_change_the_digest_and_a_value_does() {
        let spec = json!({"provider": "p", "run": {"uid": "u", "attempt": 1}, "inputs": {"a": "b"}});
        let mut second = spec.clone();
        second["run"]["attempt"] = json!(2);
        second["limits"] = json!({"timeoutSeconds": 5});
        second["planDigest"] = json!("sha256:x");
        assert_eq!(of_runner_spec(&spec), of_runner_spec(&second));
        second["inputs"]["a"] = json!("c");
        assert_ne!(of_runner_spec(&spec), of_runner_spec(&second));
    }

    #[test]
    fn the_order_of_members_does_not_change_the_digest() {
        let a: Value = serde_json::from_str(r#"{"provider":"p","inputs":{"a":"1","b":"2"}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{ "inputs": {"b":"2", "a":"1"}, "provider":"p" }"#).unwrap();
        assert_eq!(of_runner_spec(&a), of_runner_spec(&b));
    }

    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
