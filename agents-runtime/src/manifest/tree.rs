//! A YAML or JSON document with the place of every name and value, so that a fault can name it. Pure.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A place in a file; 0 stands for what is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Tree,
}

/// A member of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where the name begins.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Member>),
}

impl Node {
    /// The member of that name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Tree::Map(members) => members.iter().find(|member| member.name == name).map(|member| &member.node),
            _ => None,
        }
    }

    /// The value, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The place of the value at `path`, such as `spec.env[0].name` or `spec.inputs["a.b"]`, or of what is nearest above
    /// it; that of its name where it has one.
    pub fn locate(&self, path: &str) -> Place {
        let mut found = self;
        let mut place = self.place;
        let mut rest = path.trim_start_matches('.');
        while let Some((member_place, node, after)) = found.step(rest) {
            (place, found) = (member_place, node);
            rest = after.trim_start_matches('.');
        }
        place
    }

    /// The first step of `path`: where it leads, and what is left of the path.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(Place, &'n Self, &'p str)> {
        match &self.value {
            Tree::List(items) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item.place, item, after))
            }
            Tree::Map(members) => {
                if let Some(quoted) = path.strip_prefix('[') {
                    return members.iter().find_map(|member| {
                        let after = quoted
                            .strip_prefix(&format!("{:?}]", member.name))
                            .or_else(|| quoted.strip_prefix(&format!("{}]", member.name)))?;
                        Some((member.place, &member.node, after))
                    });
                }
                // Names may hold the characters that separate them: the longest that fits is meant.
                let fits = |member: &&Member| {
                    path.strip_prefix(&member.name)
                        .is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                };
                let member = members.iter().filter(fits).max_by_key(|member| member.name.len())?;
                Some((member.place, &member.node, &path[member.name.len()..]))
            }
            Tree::Null | Tree::Bool(_) | Tree::Integer(_) | Tree::Float(_) | Tree::Text(_) => None,
        }
    }

    /// The value without its place.
    pub fn to_json(&self) -> Value {
        match &self.value {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::from(*value),
            Tree::Integer(value) => Value::from(*value),
            Tree::Float(value) => Value::from(*value),
            Tree::Text(value) => Value::from(value.as_str()),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(members) => members.iter().map(|member| (member.name.clone(), member.node.to_json())).collect(),
        }
    }
}

impl Tree {
    /// What type it has, with article, for people: says nothing of its value.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// What it is, with article, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Integer(value) => format!("the integer {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
            Self::Null | Self::Text(_) | Self::List(_) | Self::Map(_) => self.kind().to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { place: place_of(&found), value: found.value })
    }
}

fn place_of<T>(found: &Spanned<T>) -> Place {
    Place { line: found.referenced.line(), column: found.referenced.column() }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

/// The integer that a number without a fraction is in JSON, where `1.0` and `1e3` are written so.
fn whole(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Within these bounds every whole number is exact.
    #[expect(clippy::cast_possible_truncation, reason = "whole and within the bounds")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

impl<'de> Visitor<'de> for Builder {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Tree, E> {
        i64::try_from(value).map(Tree::Integer).map_err(|_| E::custom(format!("the integer {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(whole(value).map_or(Tree::Float(value), Tree::Integer))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some((name, node)) = members.next_entry::<Spanned<String>, Node>()? {
            map.push(Member { place: place_of(&name), name: name.value, node });
        }
        Ok(Tree::Map(map))
    }
}
