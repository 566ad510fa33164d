//! JSON Schemas that users write: which are admitted, and whether a value is as one says.
//!
//! Dialect 2020-12, without what makes a schema dear or leads out of it: every keyword is looked at once, local `$ref`s
//! are laid out flat, and the result is a tree of bounded size, so that a look costs at most the size of the schema times
//! the size of the value ([`MAX_WORK`]). `unevaluatedProperties` and the like, which look at each level anew, are refused.

use std::fmt;

use jsonschema::{Draft, PatternOptions, ValidationOptions, Validator};
use serde_json::{Map, Value, json};

use crate::status::cut;

/// Most values of JSON in a schema, its references laid out.
pub const MAX_NODES: usize = 20_000;
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
pub const MAX_WORK: usize = 20_000_000;

/// Most bytes of what is said of a problem.
const MAX_TEXT: usize = 512;
/// What a pattern may be.
const PATTERNS: &str =
    ", or not one that is taken: none with look-around or back-references, or with large repetitions";

/// Keywords whose value says nothing that is looked at, or is compared as it is.
const PLAIN: &[&str] = &[
    "$comment",
    "$schema",
    "const",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
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
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A schema that is admitted.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    nodes: usize,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// It is none, or one that is not admitted; only the first problem is told.
    pub fn read(written: &Map<String, Value>) -> Result<Self, Problem> {
        let mut flat = Flat { root: written, nodes: 0, patterns: vec![], within: vec![] };
        let schema = flat.object(written, "", 0)?;
        flat.weigh()?;
        let validator = options(MAX_PATTERN_BYTES).build(&schema).map_err(|error| {
            // A schema is no secret.
            let text = cut(&error.to_string(), MAX_TEXT);
            let about = if text.ends_with("\"regex\"") { PATTERNS } else { "" };
            Problem { at: place(error.instance_path().as_str()), text: format!("{text}{about}") }
        })?;
        Ok(Self { validator, nodes: flat.nodes })
    }

    /// The first thing that is wrong with a value.
    pub fn problem(&self, value: &Value) -> Option<Problem> {
        if self.nodes.saturating_mul(nodes(value)) > MAX_WORK {
            let text = format!(
                "it has {} values and its schema {}: together they are too dear to look at",
                nodes(value),
                self.nodes
            );
            return Some(Problem { at: String::new(), text });
        }
        let error = self.validator.validate(value).err()?;
        let text = cut(&error.masked_with("the value").to_string(), MAX_TEXT);
        Some(Problem { at: place(error.instance_path().as_str()), text })
    }
}

/// How schemas are read, with patterns up to this size each.
fn options<'i>(pattern_bytes: usize) -> ValidationOptions<'i> {
    let patterns = PatternOptions::regex().size_limit(pattern_bytes).dfa_size_limit(MAX_DFA_BYTES);
    jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns)
}

/// How large a pattern is compiled, in bytes, rounded up to a power of two; 0 of one that is none, which is told otherwise.
fn compiled(pattern: &str) -> usize {
    let schema = json!({ "pattern": pattern });
    let sizes = std::iter::successors(Some(MIN_PATTERN_BYTES), |size| Some(size * 2));
    let mut sizes = sizes.take_while(|size| *size <= MAX_PATTERN_BYTES);
    sizes.find(|size| options(*size).build(&schema).is_ok()).unwrap_or(0)
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
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    parts.fold(String::new(), |place, part| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{place}[{part}]")
        } else {
            format!("{place}.{part}")
        }
    })
}

/// Lays a schema out.
struct Flat<'a> {
    root: &'a Map<String, Value>,
    nodes: usize,
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
                ("$schema", Value::String(dialect)) if !dialect.contains("json-schema.org/") => {
                    return Err(problem(at, "names another dialect than JSON Schema 2020-12"));
                }
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
                        Ok((name.clone(), self.schema(member, &format!("{at}.{name}"), depth + 1)?))
                    });
                    Value::Object(each.collect::<Result<_, Problem>>()?)
                }
                (name, value) if LIST.contains(&name) || NAMED.contains(&name) => self.plain(value, at)?,
                _ => return Err(problem(at, "is not a keyword that a schema may have here")),
            };
            flat.insert(keyword.clone(), flattened);
        }
        // Nothing of the two hides the other.
        flat.remove("$schema");
        Ok(match target {
            Some(target) if flat.is_empty() => target,
            Some(target) => json!({"allOf": [target, flat]}),
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

    /// All patterns together are no larger than they may be.
    fn weigh(&self) -> Result<(), Problem> {
        let mut total = 0;
        for (pattern, at) in &self.patterns {
            total += compiled(pattern);
            if total > MAX_PATTERN_BYTES {
                return Err(problem(at, "all patterns together are too large: say how long a text is with maxLength"));
            }
        }
        Ok(())
    }

    fn plain(&mut self, value: &Value, at: &str) -> Result<Value, Problem> {
        self.count(nodes(value), at)?;
        Ok(value.clone())
    }

    fn count(&mut self, more: usize, at: &str) -> Result<(), Problem> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(problem(at, format!("the schema has more than {MAX_NODES} values, references laid out")));
        }
        Ok(())
    }
}

fn problem(at: &str, text: impl Into<String>) -> Problem {
    Problem { at: at.to_owned(), text: text.into() }
}

#[cfg(test)]
mod tests;
