//! How old a watched cache can be at most, proven without a read per object.
//!
//! A watch says how far it has come, never how long ago that was: an event can be delivered minutes late. So the proof
//! has two halves. A *mark* is a version that was current at a known moment: the answer of one of our own writes that
//! changed something, or of a consistent list of one object, stamped before the request left. The *position* is the version the watch has
//! reached. Once the position reaches a mark, the cache holds everything up to the mark's moment.

use std::time::Duration;

use super::version::Version;

/// Nothing irreversible is decided on a cache older than this.
pub const MAX_AGE: Duration = Duration::from_secs(180);
/// Shortest time between two consistent lists that set a mark.
pub const MARK_EVERY: Duration = Duration::from_secs(30);
/// Marks closer together than this are one: many writes a second must not make a long list.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The proof of one resource's age. Moments are boot time.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    /// Ascending in both; those that the position has reached are gone.
    marks: Vec<(u64, Duration)>,
    position: Option<u64>,
    proven: Option<Duration>,
    listed: Option<Duration>,
    opaque: bool,
}

impl Freshness {
    /// A write of ours that named the version `over`, or made the object where that is `None`, was answered with
    /// `version`. One that changed nothing is answered with the version of the object's last change, which may be old.
    pub fn wrote(&mut self, over: Option<&Version>, version: &Version, at: Duration) {
        if over != Some(version) {
            self.mark(version, at);
        }
    }

    /// `version` was current no earlier than `at`, the moment before its request was sent.
    pub fn mark(&mut self, version: &Version, at: Duration) {
        let Some(version) = self.number(version) else {
            return;
        };
        if self.position.is_some_and(|position| position >= version) {
            self.prove(at);
            return;
        }
        // A mark that is reached sooner and proves more makes another one useless.
        if self.marks.iter().any(|(v, t)| *v <= version && t.saturating_add(RESOLUTION) > at) {
            return;
        }
        self.marks.retain(|(v, t)| *v < version || *t > at);
        let place = self.marks.partition_point(|(v, _)| *v < version);
        self.marks.insert(place, (version, at));
    }

    /// The same for the answer of a consistent list, which also delays the next one.
    pub fn mark_list(&mut self, version: &Version, at: Duration) {
        self.listed = self.listed.max(Some(at));
        self.mark(version, at);
    }

    /// Whether the time has come for a consistent list, should anything wait for a proof.
    pub fn wants_list(&self, now: Duration) -> bool {
        self.listed.is_none_or(|listed| now.saturating_sub(listed) >= MARK_EVERY)
    }

    /// The watch has reached `version`.
    pub fn reach(&mut self, version: &Version) {
        let Some(version) = self.number(version) else {
            return;
        };
        if self.position.is_none_or(|position| position < version) {
            self.position = Some(version);
        }
        let reached = self.marks.partition_point(|(v, _)| *v <= version);
        let last = self.marks.drain(..reached).next_back();
        if let Some((_, at)) = last {
            self.prove(at);
        }
    }

    /// The cache was replaced by a consistent list at `version`, begun at `at`. Versions begin anew: after the API
    /// server's data was restored they can be lower than before.
    pub fn relisted(&mut self, version: &Version, at: Duration) {
        self.opaque = false;
        self.position = None;
        self.listed = self.listed.max(Some(at));
        self.prove(at);
        self.reach(version);
        self.marks.retain(|(_, marked)| *marked > at);
    }

    /// The cache holds everything that happened longer ago than this. `None` before the first list, and always where
    /// versions are not numbers.
    pub fn age(&self, now: Duration) -> Option<Duration> {
        if self.opaque {
            return None;
        }
        Some(now.saturating_sub(self.proven?))
    }

    fn prove(&mut self, at: Duration) {
        self.proven = self.proven.max(Some(at));
    }

    fn number(&mut self, version: &Version) -> Option<u64> {
        let number = version.number();
        self.opaque |= number.is_none();
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn an_idle_watch_proves_nothing_until_its_bookmark_reaches_the_mark() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.age(seconds(5)), None);
        freshness.relisted(&Version::Number(10), seconds(0));
        assert_eq!(freshness.age(seconds(200)), Some(seconds(200)));
        assert!(freshness.wants_list(seconds(200)));
        freshness.mark_list(&Version::Number(50), seconds(200));
        assert!(!freshness.wants_list(seconds(229)));
        assert_eq!(freshness.age(seconds(201)), Some(seconds(201)));
        freshness.reach(&Version::Number(49));
        assert_eq!(freshness.age(seconds(202)), Some(seconds(202)), "an event proves no age by itself");
        freshness.reach(&Version::Number(50));
        assert_eq!(freshness.age(seconds(203)), Some(seconds(3)));
    }

    #[test]
    fn versions_that_are_not_numbers_prove_nothing() {
        let mut freshness = Freshness::default();
        freshness.relisted(&Version::parse("a1"), seconds(0));
        assert_eq!(freshness.age(seconds(0)), None);
    }

    #[test]
    fn restored_data_with_lower_versions_is_proven_again() {
        let mut freshness = Freshness::default();
        freshness.relisted(&Version::Number(1000), seconds(0));
        freshness.mark(&Version::Number(2000), seconds(10));
        freshness.relisted(&Version::Number(5), seconds(20));
        freshness.mark(&Version::Number(8), seconds(30));
        freshness.reach(&Version::Number(8));
        assert_eq!(freshness.age(seconds(31)), Some(seconds(1)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Others write this often.
        Others(u64),
        Wait(u64),
        OwnWrite,
        /// A write of ours to the object whose last change has this share of the present version, which changes nothing.
        WriteOfNothing(u64),
        MarkList,
        /// The watch delivers up to this share of what is not delivered yet, in percent.
        Deliver(u64),
        Relist,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..5_u64).prop_map(Step::Others),
            (1..100_000_u64).prop_map(Step::Wait),
            Just(Step::OwnWrite),
            (0..=100_u64).prop_map(Step::WriteOfNothing),
            Just(Step::MarkList),
            (0..=100_u64).prop_map(Step::Deliver),
            Just(Step::Relist),
        ]
    }

    proptest! {
        /// Whatever happens, the proven age is never younger than the truth, and a watch that has delivered everything
        /// is proven up to the last mark.
        #[test]
        fn a_proof_never_flatters(steps in vec(step(), 0..60)) {
            let mut freshness = Freshness::default();
            let mut now = Duration::ZERO;
            // When each version was written.
            let mut written = vec![Duration::ZERO];
            let mut delivered = 0_usize;
            let mut last_mark = None;
            for step in steps {
                let at = now;
                now += Duration::from_millis(1);
                match step {
                    Step::Others(count) => {
                        for _ in 0..count {
                            now += Duration::from_millis(1);
                            written.push(now);
                        }
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::OwnWrite => {
                        let over = Version::Number(written.len() as u64 - 1);
                        written.push(now);
                        freshness.wrote(Some(&over), &Version::Number(written.len() as u64 - 1), at);
                        last_mark = Some(at);
                    }
                    Step::WriteOfNothing(percent) => {
                        let version = Version::Number((written.len() as u64 - 1) * percent / 100);
                        freshness.wrote(Some(&version), &version, at);
                    }
                    Step::MarkList => {
                        freshness.mark_list(&Version::Number(written.len() as u64 - 1), at);
                        last_mark = Some(at);
                    }
                    Step::Deliver(percent) => {
                        let missing = written.len() as u64 - 1 - delivered as u64;
                        delivered += usize::try_from(missing * percent / 100).unwrap();
                        freshness.reach(&Version::Number(delivered as u64));
                    }
                    Step::Relist => {
                        delivered = written.len() - 1;
                        freshness.relisted(&Version::Number(delivered as u64), at);
                        last_mark = Some(at);
                    }
                }
                prop_assert!(freshness.marks.is_sorted());
                prop_assert!(freshness.marks.windows(2).all(|pair| pair[0].1 < pair[1].1));
                if let Some(age) = freshness.age(now) {
                    let missed = written.get(delivered + 1).copied();
                    if let Some(missed) = missed {
                        let claimed = now.saturating_sub(age);
                        prop_assert!(claimed <= missed, "missed a write of {missed:?}, claims {claimed:?}");
                    }
                    if missed.is_none() && let Some(mark) = last_mark {
                        freshness.reach(&Version::Number(delivered as u64));
                        let age = freshness.age(now).unwrap();
                        prop_assert!(age <= now.saturating_sub(mark) + RESOLUTION);
                    }
                }
            }
        }
    }
}
