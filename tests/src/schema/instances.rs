//! Random values that a definition's schema admits, made from the schema itself, so that no kind needs a generator of
//! its own.
//!
//! What only rules can say (exactly one of, no duplicates) is not known here: a value may still be refused by one.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    string::string_regex,
};
use serde_json::{Map, Number, Value, json};

/// Most members of a list or map, below any bound of the schema.
const MANY: u64 = 4;
/// Longest text that is still drawn at its full length.
const LONG: u64 = 300;
/// Deepest free-form value.
const FREE_DEPTH: u32 = 2;

/// Any value that `schema` admits.
pub fn of(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(words) = schema["enum"].as_array() {
        return select(words.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return prop_oneof![text(schema), any::<i32>().prop_map(Value::from)].boxed();
    }
    match schema["type"].as_str() {
        Some("object") => object(schema),
        Some("array") => list(schema),
        Some("string") => text(schema),
        Some("integer") => integer(schema),
        Some("number") => number(schema),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        _ => free(FREE_DEPTH),
    }
}

/// `base` with some of its fields taken from `other`, and some taken away where the schema does not require them.
pub fn mixed(schema: &Value, base: &Value) -> BoxedStrategy<Value> {
    let (schema, base) = (schema.clone(), base.clone());
    let names: Vec<String> = schema["properties"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    if names.is_empty() {
        return Just(base).boxed();
    }
    vec((any::<Index>(), any::<bool>()), 1..=2)
        .prop_flat_map(move |changes| {
            let mut start = base.clone();
            let mut fields: Vec<(String, BoxedStrategy<Value>)> = Vec::new();
            for (which, removed) in changes {
                let name = which.get(&names).clone();
                if removed && !requires(&schema, &name) {
                    start.as_object_mut().map(|members| members.remove(&name));
                } else {
                    let field = &schema["properties"][&name];
                    let fresh = of(field);
                    let made = match base.get(&name) {
                        Some(old) if field["properties"].is_object() => prop_oneof![fresh, mixed(field, old)].boxed(),
                        _ => fresh,
                    };
                    fields.push((name, made));
                }
            }
            let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
            values.prop_map(move |values| {
                let mut made = start.clone();
                for (name, value) in names.iter().zip(values) {
                    made[name] = value;
                }
                made
            })
        })
        .boxed()
}

/// `base` with one of its fields, at some depth, turned into something else: of another type, too long, unknown, absent.
pub fn broken(schema: &Value, base: &Value) -> BoxedStrategy<Value> {
    let mut paths = Vec::new();
    pointers("", schema, base, &mut paths);
    let values = [
        Value::Null,
        json!(true),
        json!(1.5),
        json!(-1),
        json!(i64::from(i32::MAX) + 1),
        json!(""),
        json!("Z"),
        json!("x".repeat(3000)),
        json!([]),
        json!([1]),
        json!(["a", "a"]),
        json!({}),
        json!({"unheardOf": 1}),
    ];
    let base = base.clone();
    (select(paths), select(values.to_vec()))
        .prop_map(move |(path, value)| {
            let mut made = base.clone();
            match (made.pointer_mut(&path), path.rsplit_once('/')) {
                (Some(place), _) => *place = value,
                (None, Some((above, name))) => {
                    if let Some(members) = made.pointer_mut(above).and_then(Value::as_object_mut) {
                        members.insert(name.to_owned(), value);
                    }
                }
                (None, None) => {}
            }
            made
        })
        .boxed()
}

/// JSON pointers to every value of `base`, to what its maps could also hold, and to one name that nobody knows.
fn pointers(at: &str, schema: &Value, base: &Value, paths: &mut Vec<String>) {
    match base {
        Value::Object(members) => {
            paths.push(format!("{at}/unheardOf"));
            for name in schema["properties"].as_object().into_iter().flat_map(Map::keys) {
                if !members.contains_key(name) {
                    paths.push(format!("{at}/{name}"));
                }
            }
            for (name, member) in members {
                let inner = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                let path = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                paths.push(path.clone());
                pointers(&path, inner, member, paths);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                paths.push(format!("{at}/{n}"));
                pointers(&format!("{at}/{n}"), &schema["items"], item, paths);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn requires(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name))
}

fn bound(schema: &Value, word: &str, or: u64) -> u64 {
    schema[word].as_u64().unwrap_or(or)
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(properties) = schema["properties"].as_object() {
        let keeps = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let fields: Vec<BoxedStrategy<Option<(String, Value)>>> = properties
            .iter()
            .map(|(name, field)| {
                let required = requires(schema, name);
                let name = name.clone();
                let value = of(field).prop_map(move |value| (name.clone(), value));
                if required { value.prop_map(Some).boxed() } else { proptest::option::weighted(0.3, value).boxed() }
            })
            .collect();
        let more = if keeps { vec(("x[a-z]{1,6}", free(1)), 0..2).boxed() } else { Just(vec![]).boxed() };
        return (fields, more)
            .prop_map(|(fields, more)| fields.into_iter().flatten().chain(more).collect::<Map<_, _>>().into())
            .boxed();
    }
    if schema["additionalProperties"].is_object() {
        let most = bound(schema, "maxProperties", MANY).min(MANY);
        let least = bound(schema, "minProperties", 0);
        let size = range(least, most);
        let key = prop_oneof![4 => "[a-zA-Z_][a-zA-Z0-9_]{0,12}", 1 => "[a-z0-9.-]{1,20}"];
        return proptest::collection::hash_map(key, of(&schema["additionalProperties"]), size)
            .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into())
            .boxed();
    }
    vec(("[a-z]{1,8}", free(FREE_DEPTH)), 0..3)
        .prop_map(|members| members.into_iter().collect::<Map<_, _>>().into())
        .boxed()
}

fn list(schema: &Value) -> BoxedStrategy<Value> {
    let size = range(bound(schema, "minItems", 0), bound(schema, "maxItems", MANY).min(MANY));
    let keys: Vec<String> = match (schema["x-kubernetes-list-type"].as_str(), &schema["x-kubernetes-list-map-keys"]) {
        (Some("map"), Value::Array(keys)) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec![],
    };
    let alone = schema["x-kubernetes-list-type"] == "set" || schema["uniqueItems"] == true;
    vec(of(&schema["items"]), size)
        .prop_map(move |items| {
            let mut kept: Vec<Value> = Vec::new();
            for item in items {
                let twice = kept.iter().any(|other| {
                    (alone && *other == item) || (!keys.is_empty() && keys.iter().all(|key| other[key] == item[key]))
                });
                if !twice {
                    kept.push(item);
                }
            }
            Value::Array(kept)
        })
        .boxed()
}

#[expect(clippy::cast_possible_truncation, reason = "both ends are small")]
fn range(least: u64, most: u64) -> std::ops::RangeInclusive<usize> {
    least as usize..=most.max(least) as usize
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    match schema["format"].as_str() {
        Some("date-time") => {
            const MOMENTS: &[&str] = &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678901Z", "1999-12-31T23:59:59Z"];
            return select(MOMENTS).prop_map(Value::from).boxed();
        }
        Some("byte") => return select(&["", "YQ==", "aGVsbG8="][..]).prop_map(Value::from).boxed(),
        _ => {}
    }
    let (least, most) = (bound(schema, "minLength", 0), bound(schema, "maxLength", 64));
    if let Some(pattern) = schema["pattern"].as_str() {
        // What is open at its end may go on.
        let inner = pattern.trim_start_matches('^');
        let inner = inner.strip_suffix('$').map_or_else(|| format!("{inner}[a-z0-9]{{1,12}}"), str::to_owned);
        if let Ok(matching) = string_regex(&inner) {
            let fits = move |text: &String| (least..=most).contains(&(text.chars().count() as u64));
            return matching.prop_filter("longer or shorter than wanted", fits).prop_map(Value::from).boxed();
        }
    }
    let length = range(least, most.min(least.max(24)));
    let word = vec(prop_oneof![8 => proptest::char::range('a', 'z'), 1 => select(&[' ', '-', '.', '/', 'é', '漢', '😀', '"', '\n'][..])], length)
        .prop_map(|letters| Value::from(letters.into_iter().collect::<String>()));
    if most <= LONG {
        let longest = range(most, most);
        let full = vec(proptest::char::range('a', 'z'), longest)
            .prop_map(|letters| Value::from(letters.into_iter().collect::<String>()));
        prop_oneof![9 => word, 1 => full].boxed()
    } else {
        word.boxed()
    }
}

fn integer(schema: &Value) -> BoxedStrategy<Value> {
    let (low, high) = match schema["format"].as_str() {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        // Beyond, a number is no longer one that every JSON reader keeps.
        _ => (-(1 << 53), 1 << 53),
    };
    let least = schema["minimum"].as_i64().unwrap_or(low).max(low);
    let most = schema["maximum"].as_i64().unwrap_or(high).min(high);
    prop_oneof![3 => least..=most, 1 => Just(least), 1 => Just(most)].prop_map(Value::from).boxed()
}

fn number(schema: &Value) -> BoxedStrategy<Value> {
    let least = schema["minimum"].as_f64().unwrap_or(-1e9);
    let most = schema["maximum"].as_f64().unwrap_or(1e9);
    (least..=most).prop_map(|number| Number::from_f64(number).map_or(json!(0), Value::Number)).boxed()
}

fn free(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z ]{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-z]{1,6}", inner), 0..3).prop_map(|members| members.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
    .boxed()
}
