//! A search for bytes that a target does not hold for: its seeds, changed a few times; its words, strung together; noise.
//!
//! The same seed gives the same inputs in the same order. Time only decides how many of them are tried.

use std::time::{Duration, Instant};

use proptest::{
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use super::Target;

/// Inputs after which the clock is looked at.
const BATCH: u32 = 50;
/// Longest input that the search makes of others.
const LONGEST: usize = 256 * 1024;

/// How long to search.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Inputs to try at most, beside the seeds.
    pub cases: u32,
    /// Time to take at most.
    pub at_most: Duration,
    /// Which inputs.
    pub seed: u64,
}

/// Why a search without a find has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All inputs were tried.
    Done,
    /// Time was over after so many.
    TimeOver(u32),
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Change {
    Word(Index, Index),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u16),
    Repeat(Index, u16, u8),
    Splice(Index, Index),
}

impl Search {
    /// Tries the seeds and then what the search makes of them.
    ///
    /// # Errors
    /// The smallest input found that the target does not hold for, and what it said; or that the seeds cannot be read.
    pub fn run(self, target: &Target) -> anyhow::Result<Stopped> {
        let Self { cases, at_most, seed } = self;
        let began = Instant::now();
        let seeds = (target.seeds)()?;
        anyhow::ensure!(!seeds.is_empty(), "{} has no seeds", target.name);
        let config = |cases| Config { failure_persistence: None, max_shrink_time: 20_000, cases, ..Config::default() };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
        for one in &seeds {
            TestRunner::new(config(1))
                .run(&Just(one.clone()).no_shrink(), check(target))
                .map_err(|error| found(target, error))?;
        }
        let inputs = inputs(seeds, target.words);
        let mut tried = 0;
        while tried < cases {
            if began.elapsed() >= at_most {
                return Ok(Stopped::TimeOver(tried));
            }
            // A runner is used up by its cases.
            let mut runner = TestRunner::new_with_rng(config(BATCH), rng);
            rng = runner.new_rng();
            runner.run(&inputs, check(target)).map_err(|error| found(target, error))?;
            tried += BATCH;
        }
        Ok(Stopped::Done)
    }
}

fn check(target: &Target) -> impl Fn(Vec<u8>) -> Result<(), TestCaseError> {
    let run = target.run;
    move |bytes| {
        run(&bytes);
        Ok(())
    }
}

fn found(target: &Target, error: TestError<Vec<u8>>) -> anyhow::Error {
    match error {
        TestError::Fail(why, bytes) => {
            anyhow::anyhow!("{} does not hold for b\"{}\": {why}", target.name, bytes.escape_ascii())
        }
        TestError::Abort(why) => anyhow::anyhow!("{}: the search gave up: {why}", target.name),
    }
}

fn inputs(seeds: Vec<Vec<u8>>, words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let at = any::<Index>;
    let change = prop_oneof![
        4 => (at(), at()).prop_map(|(place, word)| Change::Word(place, word)),
        2 => (at(), any::<u8>()).prop_map(|(place, bits)| Change::Flip(place, bits)),
        2 => (at(), bytes(8)).prop_map(|(place, bytes)| Change::Insert(place, bytes)),
        2 => (at(), 0u16..64).prop_map(|(place, length)| Change::Remove(place, length)),
        1 => (at(), 1u16..64, any::<u8>()).prop_map(|(place, length, times)| Change::Repeat(place, length, times)),
        1 => (at(), at()).prop_map(|(other, place)| Change::Splice(other, place)),
    ];
    let changed = (at(), proptest::collection::vec(change, 0..10)).prop_map(move |(seed, changes)| {
        changes.into_iter().fold(seed.get(&seeds).clone(), |bytes, change| change.apply(bytes, &seeds, words))
    });
    let strung = proptest::collection::vec(at(), 0..40)
        .prop_map(move |chosen| chosen.iter().map(|word| *word.get(words)).collect::<String>().into_bytes());
    prop_oneof![6 => changed, 3 => strung, 1 => bytes(300)]
}

impl Change {
    fn apply(self, mut bytes: Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
        let place = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match self {
            Self::Word(at, word) => {
                let at = place(at, &bytes);
                bytes.splice(at..at, word.get(words).bytes());
            }
            Self::Flip(at, bits) => {
                let at = place(at, &bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, more) => {
                let at = place(at, &bytes);
                bytes.splice(at..at, more);
            }
            Self::Remove(at, length) => {
                let at = place(at, &bytes);
                let end = bytes.len().min(at + usize::from(length));
                bytes.drain(at..end);
            }
            Self::Repeat(at, length, times) => {
                let at = place(at, &bytes);
                let end = bytes.len().min(at + usize::from(length));
                let again = bytes[at..end].repeat(usize::from(times));
                bytes.splice(at..at, again);
            }
            Self::Splice(other, at) => {
                let other = other.get(seeds);
                let from = at.index(other.len() + 1);
                bytes.truncate(place(at, &bytes));
                bytes.extend_from_slice(&other[from..]);
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::{Search, Stopped};
    use crate::fuzz::Target;

    const SEARCH: Search = Search { cases: 20_000, at_most: Duration::from_secs(60), seed: 1 };

    fn target(run: fn(&[u8])) -> Target {
        Target {
            name: "one",
            run,
            seeds: || Ok(vec![b"begin".to_vec(), b"middle".to_vec(), b"end".to_vec()]),
            words: &["<", ">"],
            cases: 0,
        }
    }

    #[test]
    fn what_takes_words_and_a_change_of_a_seed_is_found_and_made_small() {
        let broken = target(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            assert!(!(text.contains("<<>") && text.contains("mid")), "found it");
        });
        let found = SEARCH.run(&broken).unwrap_err().to_string();
        assert!(found.starts_with("one does not hold for b\"") && found.contains("found it"), "{found}");
        assert_eq!(SEARCH.run(&broken).unwrap_err().to_string(), found, "the same seed gives the same inputs");
    }

    #[test]
    fn every_seed_is_tried_as_it_is_and_no_more_inputs_than_told() {
        static TRIED: AtomicU32 = AtomicU32::new(0);
        let search = Search { cases: 0, ..SEARCH };
        for seed in ["begin", "middle", "end"] {
            let broken = target(match seed {
                "begin" => |bytes| assert_ne!(bytes, b"begin"),
                "middle" => |bytes| assert_ne!(bytes, b"middle"),
                _ => |bytes| assert_ne!(bytes, b"end"),
            });
            search.run(&broken).unwrap_err();
        }
        let counted = target(|_| {
            TRIED.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(Search { cases: 200, ..SEARCH }.run(&counted).unwrap(), Stopped::Done);
        assert_eq!(TRIED.load(Ordering::Relaxed), 203);
        let stopped = Search { at_most: Duration::ZERO, ..SEARCH }.run(&counted).unwrap();
        assert_eq!(stopped, Stopped::TimeOver(0));
    }
}
