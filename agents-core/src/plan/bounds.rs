//! What a run's pod may use where run, Agent and provider say nothing.
//!
//! The operator's defaults: they fill in what is unsaid, never change what is said, and are not covered by the digest.

use std::{collections::BTreeMap, str::FromStr};

use thiserror::Error;

use crate::{
    check::{Fault, Faults},
    quantity::{Quantity, QuantityError},
};

/// Resource of what a pod keeps on its node's disk: volumes, logs, changed files of its images.
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// Largest size of the volume that holds the runner itself; its program has a few MiB, with debug information some
/// tens.
pub const RUNNER_VOLUME: &str = "256Mi";

/// Bounds of a run's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Of the container that runs the provider.
    pub agent: Amounts,
    /// Of the init container that brings the runner along.
    pub installer: Amounts,
    /// Largest size of each folder of the run; absent: as large as the node's disk. What a run says of its ephemeral
    /// storage takes its place.
    pub volume_size: Option<Quantity>,
}

impl Default for Bounds {
    /// The product's own defaults. A coding agent mostly waits for its model, so little is asked for; it builds and tests
    /// what it wrote, so it may use what a developer's machine has.
    fn default() -> Self {
        Self {
            agent: Amounts {
                requests: amounts([("cpu", "100m"), ("memory", "256Mi"), (EPHEMERAL_STORAGE, "1Gi")]),
                limits: amounts([("cpu", "4"), ("memory", "8Gi"), (EPHEMERAL_STORAGE, "20Gi")]),
            },
            installer: Amounts {
                requests: amounts([("cpu", "10m"), ("memory", "16Mi"), (EPHEMERAL_STORAGE, "64Mi")]),
                limits: amounts([("cpu", "1"), ("memory", "64Mi"), (EPHEMERAL_STORAGE, RUNNER_VOLUME)]),
            },
            volume_size: "10Gi".parse().ok(),
        }
    }
}

impl Bounds {
    /// No bound at all: for what has no pod, and for the digest, which covers what was said.
    pub fn none() -> Self {
        Self { agent: Amounts::default(), installer: Amounts::default(), volume_size: None }
    }

    /// What no pod could be created with, each with the part it is about.
    pub fn faults(&self) -> Vec<Fault> {
        let Self { agent, installer, volume_size } = self;
        let mut faults = Faults::default();
        for (part, Amounts { requests, limits }) in [("agent", agent), ("installer", installer)] {
            for (name, least) in requests {
                if let Some(most) = limits.get(name).filter(|most| least > most) {
                    faults.add(
                        format!("{part}.requests.{name}"),
                        format!(
                            "{least}, more than its limit {most}: give both, since one that is not given has a default"
                        ),
                    );
                }
            }
            // A limit of nothing is none.
            for (name, _) in limits.iter().filter(|(_, limit)| limit.is_zero()) {
                faults.add(format!("{part}.limits.{name}"), "0, which is no limit: leave it out for none");
            }
        }
        if volume_size.is_some_and(|size| size.is_zero() || size.is_negative()) {
            faults.add("volumeSize", "no more than 0, which is no bound: leave it out for none");
        }
        faults.into_vec()
    }
}

/// Requests and limits by resource name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Asked for.
    pub requests: BTreeMap<String, Quantity>,
    /// Upper bounds.
    pub limits: BTreeMap<String, Quantity>,
}

impl Amounts {
    /// Fills in what `requests` and `limits` leave unsaid.
    ///
    /// Of a resource with a limit alone nothing is filled in: Kubernetes asks for as much as its limit. One with a request
    /// alone gets the limit here, or its request where that is more.
    pub(super) fn fill(&self, requests: &mut BTreeMap<String, String>, limits: &mut BTreeMap<String, String>) {
        let Self { requests: asked, limits: bounds } = self;
        for (name, request) in asked {
            if !requests.contains_key(name) && !limits.contains_key(name) {
                requests.insert(name.clone(), request.to_string());
            }
        }
        for (name, limit) in bounds {
            let limit = match requests.get(name) {
                Some(request) if request.parse::<Quantity>().is_ok_and(|request| request > *limit) => request.clone(),
                _ => limit.to_string(),
            };
            limits.entry(name.clone()).or_insert(limit);
        }
    }
}

/// An amount that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AmountError {
    /// No `NAME=QUANTITY`.
    #[error("{0:?} is not NAME=QUANTITY, such as memory=1Gi")]
    Form(String),
    /// Not one of those that every node has.
    #[error("{0:?} is not cpu, memory or {EPHEMERAL_STORAGE}")]
    Name(String),
    /// It is there already.
    #[error("{0} is given twice")]
    Twice(String),
    /// It has no amount.
    #[error("{name}={text}: {problem}")]
    Quantity {
        /// The resource.
        name: String,
        /// The amount as it is written.
        text: String,
        /// Why.
        problem: String,
    },
}

/// Amounts by resource name, written as `cpu=100m,memory=1Gi`. One without an amount, as `cpu=`, counts as left out, and
/// an empty text as no amount at all.
///
/// # Errors
/// The first that cannot be read.
pub fn parse_amounts(text: &str) -> Result<BTreeMap<String, Quantity>, AmountError> {
    let mut amounts = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once('=').ok_or_else(|| AmountError::Form(part.to_owned()))?;
        if !matches!(name, "cpu" | "memory" | EPHEMERAL_STORAGE) {
            return Err(AmountError::Name(name.to_owned()));
        }
        if text.is_empty() {
            continue;
        }
        let unreadable =
            |problem: String| AmountError::Quantity { name: name.to_owned(), text: text.to_owned(), problem };
        let amount = Quantity::from_str(text).map_err(|error: QuantityError| unreadable(error.to_string()))?;
        if amount.is_negative() {
            return Err(unreadable("is negative".to_owned()));
        }
        if amounts.insert(name.to_owned(), amount).is_some() {
            return Err(AmountError::Twice(name.to_owned()));
        }
    }
    Ok(amounts)
}

fn amounts<const N: usize>(written: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    // Each is a quantity, as a test sees.
    written.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    #[test]
    fn the_products_own_bounds_are_whole_and_sound() {
        let bounds = Bounds::default();
        assert_eq!(bounds.faults(), []);
        for Amounts { requests, limits } in [&bounds.agent, &bounds.installer] {
            assert_eq!((requests.len(), limits.len()), (3, 3));
        }
        assert!(bounds.volume_size.is_some());
        let none = Bounds::none();
        assert_eq!((none.faults(), none.agent), (vec![], Amounts::default()));
    }

    #[test]
    fn what_bounds_nothing_is_a_fault() {
        let limits = |text: &str| Amounts { requests: BTreeMap::new(), limits: parse_amounts(text).unwrap() };
        let bounds = Bounds { agent: limits("cpu=0"), volume_size: "0".parse().ok(), ..Bounds::default() };
        let fields: Vec<_> = bounds.faults().into_iter().map(|fault| fault.field).collect();
        assert_eq!(fields, ["agent.limits.cpu", "volumeSize"]);
        let upside_down = Amounts { requests: parse_amounts("memory=1Gi").unwrap(), ..limits("memory=1G") };
        let bounds = Bounds { installer: upside_down, ..Bounds::default() };
        assert_eq!(bounds.faults()[0].field, "installer.requests.memory");
    }

    #[test]
    fn amounts_read_as_they_are_written() {
        assert_eq!(parse_amounts(""), Ok(BTreeMap::new()));
        assert_eq!(parse_amounts("cpu=,memory="), Ok(BTreeMap::new()));
        let read = parse_amounts("cpu=100m, memory=1Gi,ephemeral-storage=1e9").unwrap();
        assert_eq!(read, amounts([("cpu", "100m"), ("memory", "1024Mi"), ("ephemeral-storage", "1G")]));
        for bad in ["cpu", "gpu=1", "cpu=x", "cpu=-1", "cpu=1,cpu=2", "cpu=1;memory=1", "=1", "cpu==1"] {
            assert!(parse_amounts(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_said_wins_and_no_request_is_above_its_limit(
            said_request in option::of(1u32..100), said_limit in option::of(100u32..200),
            request in option::of(1u32..150), limit in option::of(150u32..200),
        ) {
            let one = |amount: Option<u32>| -> BTreeMap<String, String> {
                amount.map(|amount| ("memory".to_owned(), format!("{amount}Mi"))).into_iter().collect()
            };
            let read = |amount| one(amount).into_iter().map(|(name, text)| (name, text.parse().unwrap())).collect();
            let (mut requests, mut limits) = (one(said_request), one(said_limit));
            Amounts { requests: read(request), limits: read(limit) }.fill(&mut requests, &mut limits);
            for (said, filled) in [(said_request, &requests), (said_limit, &limits)] {
                if let Some(said) = said {
                    prop_assert_eq!(filled, &one(Some(said)));
                }
            }
            if limit.is_some() {
                prop_assert!(limits.contains_key("memory"));
            }
            if request.is_some() {
                // What has only a limit asks for as much, says Kubernetes.
                prop_assert!(requests.contains_key("memory") || said_limit.is_some());
            }
            if let (Some(least), Some(most)) = (requests.get("memory"), limits.get("memory")) {
                prop_assert!(least.parse::<Quantity>().unwrap() <= most.parse::<Quantity>().unwrap());
            }
        }
    }
}
