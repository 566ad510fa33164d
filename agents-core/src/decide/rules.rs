//! What a kind does beyond being right: the one door through which its own rules are asked.
//!
//! A world that holds an object of any kind looks up what its rules depend on ([`Decide::GATHER`]), and has the standing
//! and the fields that they come to written into its status by [`declaration::decide`](super::declaration::decide). So a
//! kind that begins to act changes no world.

use std::{fmt::Debug, sync::Arc};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Confirm, Effect, declaration::Standing};
use crate::{
    api::Resource,
    check::Check,
    look::{AnyResource, Look},
};

/// Fields of a status that follow from the standing, and that no rules write.
const HEAD: [&str; 5] = ["conditions", "message", "observedGeneration", "phase", "reason"];

/// How the rules of a kind get what they depend on: the object, and what they look up. Nothing is decided there.
pub type Gather<K> = fn(Arc<Resource<K>>, &dyn Look) -> Box<dyn Rules>;

/// A kind with its rules.
pub trait Decide: Check {
    /// Whether its objects are executed on a runtime.
    const EXECUTED: bool = false;
    /// The kind's own rules; none of one whose objects need only be right. They are asked when the spec is right and
    /// everything that it refers to is there.
    const GATHER: Option<Gather<Self>> = None;

    /// Whether a decision rests on which other objects of the kind carry its tags: then no two of them are stored at once, and
    /// one whose tags have other carriers by then is decided anew.
    const EXCLUSIVE: bool = false;

    /// Tags by which others find this object without its name: what each is called, and its value.
    fn tags(object: &Resource<Self>) -> Vec<(&'static str, String)> {
        let _ = object;
        vec![]
    }

    /// Whether no decision changes the object any more, whatever becomes of what it refers to.
    fn is_over(object: &Resource<Self>) -> bool {
        let _ = object;
        false
    }
}

/// The same of a kind that the type does not say; `None` for an object of another kind.
pub type AnyGather = fn(Arc<AnyResource>, &dyn Look) -> Option<Box<dyn Rules>>;

/// What `K` gathers, if it has rules.
pub fn gather<K: Decide>() -> Option<AnyGather> {
    let gather: AnyGather = |object, look| Some(K::GATHER?(object.downcast().ok()?, look));
    K::GATHER.map(|_| gather)
}

/// The rules of a kind, with everything that a decision about one object depends on.
pub trait Rules: Debug + Send + Sync {
    /// Decides. The same rules and the same `now` give the same deed.
    fn decide(&self, now: Timestamp) -> Deed;
}

/// What the rules of a kind come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// What must be read consistently before anything is decided; then nothing else counts.
    pub confirm: Confirm,
    /// What the head of the status says; none leaves the status as it is.
    pub standing: Option<Standing>,
    /// What becomes of the fields of the status that are the kind's own; of one that is not named, what it was.
    pub fields: Vec<(String, Option<Value>)>,
    /// Performed in order after the status is stored.
    pub after: Vec<Effect>,
    /// When to decide again although nothing changed.
    pub wake: Option<Timestamp>,
}

impl Deed {
    /// This standing, and nothing else.
    pub fn stands(standing: Standing) -> Self {
        Self { standing: Some(standing), ..Self::waits() }
    }

    /// Nothing until something changes.
    pub fn waits() -> Self {
        Self { confirm: Confirm::default(), standing: None, fields: vec![], after: vec![], wake: None }
    }

    /// Nothing before these facts are read consistently.
    pub fn confirm(confirm: Confirm) -> Self {
        Self { confirm, ..Self::waits() }
    }

    /// The same with the fields in which `after` differs from what is stored.
    #[must_use]
    pub fn with<S: Serialize + Default>(self, before: Option<&S>, after: &S) -> Self {
        let (before, after) = (before.map(object_of).unwrap_or_default(), object_of(after));
        let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
        let is_own = |name: &str| !HEAD.contains(&name);
        let fields =
            gone.collect::<Vec<_>>().into_iter().chain(after.into_iter().map(|(name, value)| (name, Some(value))));
        Self { fields: fields.filter(|(name, _)| is_own(name)).collect(), ..self }
    }
}

fn object_of(status: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        // A status is an object, and what was decoded is encoded.
        Ok(_) | Err(_) => Map::new(),
    }
}
