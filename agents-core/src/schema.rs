//! JSON Schemas that users write: which are admitted, and whether a value is as one says.
//!
//! Dialect 2020-12, without what makes a schema dear or leads out of it: every keyword is looked at once, local `$ref`s
//! are laid out flat, and the result is a tree of bounded size, so that a look costs at most the size of the schema times
//! the size of the value. `unevaluatedProperties` and the like, which look at each level anew, are refused.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, ValidationOptions, Validator};
use serde_json::{Map, Value, json};

use crate::{hidden::visible, status::cut};

/// Most values of JSON in a schema, its references laid out.
const MAX_NODES: usize = 20_000;
/// Most bytes of a schema's texts and names, its references laid out.
const MAX_BYTES: usize = 128 * 1024;
/// Values of a schema times bytes of what is looked at, up to which the places of problems are looked for among branches.
const MAX_REASONS: usize = 512 * 1024;
/// Most bytes of a pattern as it is written: it is read as a whole before anything else bounds it.
const MAX_PATTERN_TEXT: usize = 1024;
/// Most levels of a schema, its references laid out.
const MAX_DEPTH: usize = 96;
/// Most patterns of a schema.
const MAX_PATTERNS: usize = 32;
/// Most bytes of all patterns together, compiled: a text of 64 KiB then takes about half a second at worst, where each
/// byte is held against each state of each pattern.
const MAX_PATTERN_BYTES: usize = 1 << 17;
/// Fewest bytes that a pattern is counted as.
const MIN_PATTERN_BYTES: usize = 1 << 10;
/// Most bytes of what a pattern is made into while it is used, so that the usual one costs one step for each byte.
const MAX_DFA_BYTES: usize = 1 << 20;
/// Values of a schema times values of what is looked at: about a tenth of a second.
const MAX_WORK: usize = 20_000_000;

/// Most bytes of what is said of a problem.
const MAX_TEXT: usize = 512;
/// Most bytes that are shown of one name.
const MAX_NAME: usize = 64;
/// What a pattern may be.
const PATTERNS: &str = "is not a pattern that is taken: at most 1024 bytes, without look-around such as (?!…) and \
                        back-references, and without large repetitions, in whose place maxLength stands";

/// Keywords that say nothing about a value; those that begin with `x-` do not either.
const SAYS_NOTHING: &[&str] = &[
    "$comment",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "discriminator",
    "example",
    "examples",
    "format",
    "markdownDescription",
    "readOnly",
    "title",
    "writeOnly",
];
/// Keywords whose value is compared as it is.
const PLAIN: &[&str] = &[
    "const",
    "dependentRequired",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
    "type",
    "uniqueItems",
];
/// Keywords of other dialects, and what says the same here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("additionalItems", "prefixItems for the first items, and items for those behind"),
    ("dependencies", "dependentRequired or dependentSchemas"),
    ("nullable", "type: [\"string\", \"null\"]"),
];
/// Keywords whose value is a schema.
const ONE: &[&str] = &["additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value has a schema for each name.
const NAMED: &[&str] = &["dependentSchemas", "patternProperties", "properties"];
/// Where schemas stand that others refer to.
const DEFINITIONS: &[&str] = &["$defs", "definitions"];

/// What is wrong with a schema, or with a value by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `.properties.version`; empty for all of it.
    pub at: String,
    /// What, without the value.
    pub text: String,
}

/// A schema that is admitted.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    nodes: usize,
    /// Whether a value may be held against one of several schemas: then each of them has its own reasons against it.
    branches: bool,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// It is none, or one that is not admitted; only the first problem is told.
    pub fn read(written: &Map<String, Value>) -> Result<Self, Problem> {
        let mut flat = Flat { root: written, nodes: 0, bytes: 0, branches: false, patterns: vec![], within: vec![] };
        let schema = flat.object(written, "", 0)?;
        flat.weigh()?;
        let validator = options(MAX_PATTERN_BYTES).build(&schema).map_err(|error| {
            // A schema is no secret.
            problem(&place(error.instance_path().as_str()), error.to_string())
        })?;
        Ok(Self { validator, nodes: flat.nodes, branches: flat.branches })
    }

    /// The first thing that is wrong with a value.
    pub fn problem(&self, value: &Value) -> Option<Problem> {
        if self.nodes.saturating_mul(nodes(value)) > MAX_WORK {
            let text = format!(
                "it has {} values and its schema {}: together they are too dear to look at",
                nodes(value),
                self.nodes
            );
            return Some(problem("", text));
        }
        if self.validator.is_valid(value) {
            return None;
        }
        // To say where, everything that any branch has against any part of the value is written down, parts included.
        if self.branches && self.nodes.saturating_mul(written(value)) > MAX_REASONS {
            return Some(problem("", "it is not as its schema has it; it is too large to say where"));
        }
        let error = self.validator.validate(value).err()?;
        Some(problem(&place(error.instance_path().as_str()), error.masked_with("the value").to_string()))
    }
}

/// How schemas are read, with patterns up to this size each.
fn options<'i>(pattern_bytes: usize) -> ValidationOptions<'i> {
    let patterns = PatternOptions::regex().size_limit(pattern_bytes).dfa_size_limit(MAX_DFA_BYTES);
    jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns)
}

/// How large a pattern is compiled, in bytes, rounded up to a power of two; `None` of one that is not taken.
fn compiled(pattern: &str) -> Option<usize> {
    let schema = json!({ "pattern": pattern });
    let fits = |size: &usize| options(*size).build(&schema).is_ok();
    if pattern.len() > MAX_PATTERN_TEXT || !fits(&MAX_PATTERN_BYTES) {
        return None;
    }
    std::iter::successors(Some(MIN_PATTERN_BYTES), |size| Some((size * 2).min(MAX_PATTERN_BYTES))).find(fits)
}

/// Bytes of the texts and names of a value, and one for each other.
fn written(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.iter().map(|(name, member)| name.len() + written(member)).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(written).sum::<usize>(),
        Value::String(text) => 1 + text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    }
}

/// How many values of JSON a value is.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(nodes).sum::<usize>(),
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A JSON pointer as the path of a field.
fn place(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| cut(&part.replace("~1", "/").replace("~0", "~"), MAX_NAME));
    parts.fold(String::new(), |place, part| {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{place}[{part}]")
        } else {
            format!("{place}.{part}")
        }
    })
}

/// A pointer of a reference, in which the signs of a URL are spelt out (RFC 6901, section 6).
fn spelt_out(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lays a schema out.
struct Flat<'a> {
    root: &'a Map<String, Value>,
    nodes: usize,
    bytes: usize,
    branches: bool,
    /// Every pattern and where it stands.
    patterns: Vec<(&'a str, String)>,
    /// References that are being followed.
    within: Vec<&'a str>,
}

impl<'a> Flat<'a> {
    fn schema(&mut self, written: &'a Value, at: &str, depth: usize) -> Result<Value, Problem> {
        match written {
            Value::Object(schema) => self.object(schema, at, depth),
            // Whether it is a schema at all is said by the dialect's own schema.
            other => self.plain(other, at),
        }
    }

    fn object(&mut self, written: &'a Map<String, Value>, at: &str, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(problem(at, format!("more than {MAX_DEPTH} levels")));
        }
        self.count(1, at)?;
        let mut flat = Map::new();
        let mut target = None;
        for (keyword, value) in written {
            let at = &format!("{at}.{keyword}");
            let flattened = match (keyword.as_str(), value) {
                ("$ref", Value::String(reference)) => {
                    target = Some(self.reference(reference, at, depth)?);
                    continue;
                }
                (name, Value::Object(_)) if DEFINITIONS.contains(&name) => continue,
                // Beside references within the schema alone, its own name changes nothing.
                ("$schema" | "$id", Value::String(_)) if depth == 0 => continue,
                (name, _) if SAYS_NOTHING.contains(&name) || name.starts_with("x-") => continue,
                (name, value) if PLAIN.contains(&name) => {
                    if let ("pattern", Value::String(pattern)) = (name, value) {
                        self.pattern(pattern, at)?;
                    }
                    self.plain(value, at)?
                }
                (name, value) if ONE.contains(&name) => self.schema(value, at, depth + 1)?,
                (name, Value::Array(items)) if LIST.contains(&name) => {
                    let items = items.iter().enumerate();
                    items
                        .map(|(n, item)| self.schema(item, &format!("{at}[{n}]"), depth + 1))
                        .collect::<Result<_, _>>()?
                }
                (name, Value::Object(members)) if NAMED.contains(&name) => {
                    if name == "patternProperties" {
                        members.keys().try_for_each(|pattern| self.pattern(pattern, at))?;
                    }
                    let members = members.iter();
                    let each = members.map(|(name, member)| {
                        self.bytes += name.len();
                        let at = format!("{at}.{}", cut(name, MAX_NAME));
                        Ok((name.clone(), self.schema(member, &at, depth + 1)?))
                    });
                    Value::Object(each.collect::<Result<_, Problem>>()?)
                }
                (name, value) if LIST.contains(&name) || NAMED.contains(&name) => self.plain(value, at)?,
                (name, _) => {
                    let instead = ELSEWHERE.iter().find(|(keyword, _)| *keyword == name);
                    let instead = instead.map(|(_, instead)| format!(": say {instead}")).unwrap_or_default();
                    return Err(problem(
                        at,
                        format!("is not a keyword of JSON Schema 2020-12 that is read here{instead}"),
                    ));
                }
            };
            flat.insert(keyword.clone(), flattened);
        }
        self.branches |= ["anyOf", "oneOf"].iter().any(|name| flat.contains_key(*name));
        Ok(match target {
            Some(target) if flat.is_empty() => target,
            // Nothing of the two hides the other.
            Some(target) => {
                let both = Value::Array(vec![target, Value::Object(flat)]);
                Value::Object(Map::from_iter([("allOf".to_owned(), both)]))
            }
            None => Value::Object(flat),
        })
    }

    fn reference(&mut self, reference: &'a str, at: &str, depth: usize) -> Result<Value, Problem> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(problem(at, "leads out of the schema: only #/… is followed"));
        };
        if self.within.contains(&reference) || pointer.is_empty() {
            return Err(problem(at, format!("{reference} refers to itself: such a schema has no end")));
        }
        let pointer = spelt_out(pointer);
        let (first, rest) = pointer.strip_prefix('/').unwrap_or_default().split_once('/').unwrap_or_default();
        let found = self.root.get(first).and_then(|value| value.pointer(&format!("/{rest}")));
        let Some(target) = found.filter(|_| !rest.is_empty()) else {
            return Err(problem(at, format!("{reference} leads nowhere")));
        };
        self.within.push(reference);
        let flat = self.schema(target, at, depth + 1);
        self.within.pop();
        flat
    }

    fn pattern(&mut self, pattern: &'a str, at: &str) -> Result<(), Problem> {
        self.patterns.push((pattern, at.to_owned()));
        if self.patterns.len() > MAX_PATTERNS {
            return Err(problem(at, format!("more than {MAX_PATTERNS} patterns")));
        }
        Ok(())
    }

    /// Each pattern is one that is taken, and all together are no larger than they may be.
    fn weigh(&self) -> Result<(), Problem> {
        let mut known = BTreeMap::new();
        let mut total = 0;
        for (pattern, at) in &self.patterns {
            let size = *known.entry(pattern).or_insert_with(|| compiled(pattern));
            total += size.ok_or_else(|| problem(at, PATTERNS))?;
            if total > MAX_PATTERN_BYTES {
                return Err(problem(at, "all patterns together are too large: say how long a text is with maxLength"));
            }
        }
        Ok(())
    }

    fn plain(&mut self, value: &Value, at: &str) -> Result<Value, Problem> {
        self.bytes += written(value);
        self.count(nodes(value), at)?;
        Ok(value.clone())
    }

    fn count(&mut self, more: usize, at: &str) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(problem(at, format!("the schema has more than {MAX_NODES} values, references laid out")));
        }
        if self.bytes > MAX_BYTES {
            return Err(problem(at, format!("the schema has more than {MAX_BYTES} bytes, references laid out")));
        }
        Ok(())
    }
}

/// What users read of a problem has a bound, and hides nothing.
fn problem(at: &str, text: impl AsRef<str>) -> Problem {
    Problem { at: cut(&visible(at), MAX_TEXT), text: cut(&visible(text.as_ref()), MAX_TEXT) }
}

#[cfg(test)]
mod tests;
