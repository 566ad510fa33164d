//! How a decision finds the objects that it depends on.
//!
//! Nothing is read here: each world answers from what it has (caches, manifests, a folder that is judged), and may note
//! what was asked for. That is all that the decision depends on among objects, so whoever notes it needs no list of
//! references of its own to know whom a change concerns.

use std::{any::Any, sync::Arc};

use crate::{
    api::{Kind, Resource},
    id::{Id, Key},
};

/// What a look-up of a referenced object found. Objects are shared: every decision looks them up, and texts are large.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Found<T: ?Sized> {
    /// The object.
    Object(Arc<T>),
    /// No such object.
    #[default]
    Absent,
    /// An object that cannot be read as its kind; the text says why.
    Unreadable(String),
}

impl<T> Found<T> {
    /// The object, when there is one that can be read.
    pub fn object(&self) -> Option<&T> {
        match self {
            Self::Object(object) => Some(object),
            Self::Absent | Self::Unreadable(_) => None,
        }
    }
}

/// A [`Resource`] of a kind that the type does not say.
pub type AnyResource = dyn Any + Send + Sync;

impl Found<AnyResource> {
    /// The same as an object of this kind.
    pub fn into_kind<K: Kind>(self) -> Found<Resource<K>> {
        match self {
            Self::Object(object) => match object.downcast() {
                Ok(object) => Found::Object(object),
                Err(_) => Found::Unreadable("it is not kept as its kind".to_owned()),
            },
            Self::Absent => Found::Absent,
            Self::Unreadable(why) => Found::Unreadable(why),
        }
    }
}

/// What objects of a kind are found by without their names ([`Decide::tags`](crate::decide::rules::Decide::tags)).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    /// Their kind.
    pub kind: &'static str,
    /// Their namespace.
    pub namespace: String,
    /// What the tag is called.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// Where objects are looked up.
pub trait Look {
    /// The object, as a [`Resource`] of the kind that `id` names.
    fn look(&self, id: &Id) -> Found<AnyResource>;

    /// Every object with this tag that can be read, as a [`Resource`] of the kind that the tag names, by their names.
    fn tagged(&self, tag: &Tag) -> Vec<Arc<AnyResource>>;
}

impl dyn Look + '_ {
    /// The object of the kind `K` by this name.
    pub fn find<K: Kind>(&self, namespace: &str, name: &str) -> Found<Resource<K>> {
        self.look(&Id::new(K::KIND, Key::new(namespace, name))).into_kind()
    }

    /// Every object of the kind `K` with this tag.
    pub fn all<K: Kind>(&self, namespace: &str, name: &'static str, value: &str) -> Vec<Arc<Resource<K>>> {
        let tag = Tag { kind: K::KIND, namespace: namespace.to_owned(), name, value: value.to_owned() };
        self.tagged(&tag).into_iter().filter_map(|object| object.downcast().ok()).collect()
    }
}
