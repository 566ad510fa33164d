//! What the schema cannot say of a spec: byte limits, contradicting spellings, graphs, times, templates.
//!
//! One file per kind, a function of the spec alone. What CEL or the schema of the API server refuses is not repeated
//! here. Everything a check finds is reported at once, each fault with its field.

mod agent;
mod agent_provider;
mod agent_run;
mod approval_policy;
mod artifact;
mod budget;
mod implementation_source;
mod implementation_spec;
mod memory;
pub mod orchestration;
mod orchestration_run;
mod schedule;
mod secret_binding;
mod signal;
mod signal_delivery;
mod steps;
mod tool;
mod tool_run;
mod values;
mod version_control_provider;
mod workspace;

use std::collections::BTreeSet;

use serde_json::Value;

pub use self::agent_run::address_fault;
use crate::{
    api::{Kind, common::MAX_FREE_FORM_BYTES},
    status::Reason,
    template::{self, Budget, TemplateError},
};

/// A fault of the spec itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Field path from the object's root, such as `spec.outputs[1].path`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Every fault found so far.
#[derive(Debug, Default)]
pub struct Faults {
    found: Vec<Fault>,
    /// What is left for reading the templates of the object.
    templates: Budget,
}

impl Faults {
    /// Notes a fault of the field at `field`.
    pub fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.found.push(Fault { field: field.into(), problem: problem.into() });
    }

    /// Notes what was found of the field at `field`, if anything.
    pub fn perhaps(&mut self, field: &str, problem: Option<String>) {
        if let Some(problem) = problem {
            self.add(field, problem);
        }
    }

    /// Notes text of more than `most` bytes; the schema counts characters.
    pub fn bytes(&mut self, field: &str, text: &str, most: usize) {
        if text.len() > most {
            self.add(field, format!("{} bytes; at most {most}", text.len()));
        }
    }

    /// Notes a template that cannot be read. All templates of the object share what reading them may cost.
    pub fn template(&mut self, field: &str, source: &str) {
        if self.templates.is_over() {
            return;
        }
        if let Err(error) = template::parse(field, source, &self.templates) {
            let TemplateError { template: _, line, column, problem, reason: _ } = error;
            self.add(field, format!("line {line}, column {column}: {problem}"));
        }
    }

    /// Notes a free-form object that is too large; whether it is not.
    pub fn free_form<'a>(&mut self, field: &str, written: impl IntoIterator<Item = (&'a String, &'a Value)>) -> bool {
        let bytes: usize = written.into_iter().map(|(name, value)| name.len() + value.to_string().len() + 4).sum();
        if bytes > MAX_FREE_FORM_BYTES {
            self.add(field, format!("about {bytes} bytes of JSON; at most {MAX_FREE_FORM_BYTES}"));
        }
        bytes <= MAX_FREE_FORM_BYTES
    }

    /// Notes each name that the list at `list` has given before.
    pub fn distinct<'a>(&mut self, list: &str, names: impl IntoIterator<Item = &'a String>) {
        let mut seen = BTreeSet::new();
        for (n, name) in names.into_iter().enumerate() {
            if !seen.insert(name) {
                self.add(format!("{list}[{n}].name"), format!("{name:?} is declared twice"));
            }
        }
    }

    /// Notes two spellings of one thing that differ.
    pub fn same<T: PartialEq>(&mut self, canonical: (&str, Option<&T>), other: (&str, Option<&T>)) {
        if let ((field, Some(one)), (spelling, Some(two))) = (canonical, other)
            && one != two
        {
            self.add(spelling, format!("contradicts {field}: give one of them, or the same value in both"));
        }
    }

    /// What was found.
    pub fn into_vec(self) -> Vec<Fault> {
        self.found
    }
}

/// An object of the same namespace without which another one is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Field path from the object's root, such as `spec.providerRef`.
    pub field: &'static str,
    /// Kind of the object that is referred to.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What its absence is called.
    pub absent: Reason,
}

/// A kind whose specs can be checked without any other object.
pub trait Check: Kind {
    /// Notes every fault of `spec`.
    fn check(spec: &Self::Spec, faults: &mut Faults);

    /// Every object without which one with this spec is not ready.
    fn references(_spec: &Self::Spec) -> Vec<Reference> {
        Vec::new()
    }
}

/// Every fault of `spec`.
pub fn faults<K: Check>(spec: &K::Spec) -> Vec<Fault> {
    let mut faults = Faults::default();
    K::check(spec, &mut faults);
    faults.into_vec()
}
