//! The election as a state machine without effects: what one process has seen and written, and what it does next.
//!
//! Clocks of different machines are never compared. A challenger waits for the lease's duration from the moment *it*
//! saw the record change; a leader counts from the moment *before* it sent its last successful renewal, and stops
//! a margin earlier. Since the renewal is seen after it was sent, the leader has stopped when the challenger begins, as
//! long as their clocks run alike within the margin.

use std::time::Duration;

/// How an election is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// How long others wait after the last renewal they saw.
    pub duration: Duration,
    /// How much earlier than `duration` a leader that cannot renew stops.
    pub margin: Duration,
    /// Time between renewals.
    pub renew_every: Duration,
    /// Time between looks at a lease that another holds, and after a failed call.
    pub retry_every: Duration,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            margin: Duration::from_secs(3),
            renew_every: Duration::from_secs(3),
            retry_every: Duration::from_millis(750),
        }
    }
}

impl Params {
    /// How long a leader may act after the start of its last successful renewal.
    pub fn tenure(&self) -> Duration {
        self.duration.saturating_sub(self.margin)
    }
}

/// What the lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` when it was released.
    pub holder: Option<String>,
    /// How long its holder keeps it after a renewal.
    pub duration: Duration,
    /// The object's version, which a write must name; `None` when the object does not exist (any more).
    pub version: Option<String>,
}

/// A record, and when it was seen to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The record.
    pub record: Record,
    /// Boot time of this machine at which this version was seen first.
    pub changed_at: Duration,
}

/// What an elector does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Take the lease.
    Acquire,
    /// Keep the lease.
    Renew,
    /// Nothing until then, in boot time.
    Wait(Duration),
    /// Stop acting at once and for ever.
    StepDown,
}

/// The decision of one elector. `leading_since` is the boot time before its last successful write was sent, while it
/// leads.
pub fn elect(
    observed: Option<&Observed>,
    leading_since: Option<Duration>,
    identity: &str,
    params: &Params,
    now: Duration,
) -> Decision {
    let holder = observed.and_then(|seen| seen.record.holder.as_deref());
    if let Some(since) = leading_since {
        let renew_at = since.saturating_add(params.renew_every);
        return if now >= since.saturating_add(params.tenure()) || holder.is_some_and(|holder| holder != identity) {
            Decision::StepDown
        } else if now >= renew_at {
            Decision::Renew
        } else {
            Decision::Wait(renew_at)
        };
    }
    match (observed, holder) {
        (Some(seen), Some(holder)) if holder != identity => {
            let free_at = seen.changed_at.saturating_add(seen.record.duration.max(params.duration));
            if now >= free_at { Decision::Acquire } else { Decision::Wait(free_at) }
        }
        // Never held, released, or taken by a write of ours whose answer was lost.
        _ => Decision::Acquire,
    }
}

/// What an elector's loop does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Read the lease.
    Read,
    /// Replace the record of this version, or create the lease without one.
    Write {
        /// The version the write must name.
        over: Option<String>,
        /// Whether this takes the lease or keeps it.
        acquires: bool,
    },
    /// Nothing until then, in boot time.
    Wait(Duration),
    /// Leadership is over.
    Over,
}

/// One elector.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    identity: String,
    params: Params,
    observed: Option<Observed>,
    leading_since: Option<Duration>,
    /// The record may have changed in a way that we would know: read before the next write.
    outdated: bool,
    read_at: Option<Duration>,
    refused_at: Option<Duration>,
    not_before: Duration,
}

impl Candidate {
    /// An elector that has seen nothing. `identity` differs from every other process's, earlier ones included.
    pub(super) fn new(identity: impl Into<String>, params: Params) -> Self {
        Self {
            identity: identity.into(),
            params,
            observed: None,
            leading_since: None,
            outdated: true,
            read_at: None,
            refused_at: None,
            not_before: Duration::ZERO,
        }
    }

    /// The end of its right to act, in boot time; `None` while it does not lead.
    pub(super) fn acts_until(&self) -> Option<Duration> {
        Some(self.leading_since?.saturating_add(self.params.tenure()))
    }

    /// What it does now.
    pub(super) fn step(&self, now: Duration) -> Step {
        let decision = elect(self.observed.as_ref(), self.leading_since, &self.identity, &self.params, now);
        if decision == Decision::StepDown {
            return Step::Over;
        }
        if now < self.not_before {
            let until = self.acts_until().unwrap_or(Duration::MAX);
            return Step::Wait(self.not_before.min(until));
        }
        if self.outdated {
            return Step::Read;
        }
        let over = self.observed.as_ref().and_then(|seen| seen.record.version.clone());
        match decision {
            Decision::StepDown => Step::Over,
            Decision::Acquire => Step::Write { over, acquires: true },
            Decision::Renew => Step::Write { over, acquires: false },
            Decision::Wait(until) if self.leading_since.is_some() => Step::Wait(until),
            Decision::Wait(until) => {
                let look_at = self.read_at.unwrap_or_default().saturating_add(self.params.retry_every);
                if now >= look_at { Step::Read } else { Step::Wait(until.min(look_at)) }
            }
        }
    }

    /// The lease was read: `None` when it does not exist. What was seen before still counts then, so that a deleted
    /// lease is not free before its holder has noticed.
    pub(super) fn read(&mut self, record: Option<Record>, now: Duration) {
        self.outdated = false;
        self.read_at = Some(now);
        match (record, &mut self.observed) {
            (Some(record), Some(seen)) if seen.record.version == record.version => seen.record = record,
            (Some(record), observed) => {
                *observed = Some(Observed { record, changed_at: now });
            }
            (None, Some(seen)) => seen.record.version = None,
            (None, None) => (),
        }
    }

    /// A write that was sent after `began` has succeeded.
    pub(super) fn wrote(&mut self, record: Record, began: Duration, now: Duration) {
        self.read(Some(record), now);
        self.leading_since = Some(began);
    }

    /// The record is not the one the write named: someone else has written. What they wrote is read at once, but only
    /// once: whatever is refused again and again is no race.
    pub(super) fn refused(&mut self, now: Duration) {
        self.outdated = true;
        let retry_every = self.params.retry_every;
        if self.refused_at.is_some_and(|at| now < at.saturating_add(retry_every * 2)) {
            self.not_before = now.saturating_add(retry_every);
        }
        self.refused_at = Some(now);
    }

    /// A call failed, or its answer was lost.
    pub(super) fn failed(&mut self, now: Duration) {
        self.outdated = true;
        self.not_before = now.saturating_add(self.params.retry_every);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn seen(holder: Option<&str>, at: u64) -> Observed {
        Observed {
            record: Record { holder: holder.map(str::to_owned), duration: seconds(15), version: Some("1".to_owned()) },
            changed_at: seconds(at),
        }
    }

    #[test]
    fn each_situation_has_its_decision() {
        let decide = |observed: Option<Observed>, since: Option<u64>, now: u64| {
            elect(observed.as_ref(), since.map(seconds), "me", &Params::default(), seconds(now))
        };
        assert_eq!(decide(None, None, 0), Decision::Acquire);
        assert_eq!(decide(Some(seen(None, 0)), None, 0), Decision::Acquire, "released");
        assert_eq!(decide(Some(seen(Some("me"), 0)), None, 0), Decision::Acquire, "the answer was lost");
        assert_eq!(decide(Some(seen(Some("other"), 10)), None, 24), Decision::Wait(seconds(25)));
        assert_eq!(decide(Some(seen(Some("other"), 10)), None, 25), Decision::Acquire);
        assert_eq!(decide(Some(seen(Some("me"), 10)), Some(10), 12), Decision::Wait(seconds(13)));
        assert_eq!(decide(Some(seen(Some("me"), 10)), Some(10), 13), Decision::Renew);
        assert_eq!(decide(Some(seen(Some("me"), 10)), Some(10), 22), Decision::StepDown, "too late to renew");
        assert_eq!(decide(Some(seen(Some("other"), 11)), Some(10), 11), Decision::StepDown, "taken");
    }

    #[test]
    fn a_holder_with_a_longer_lease_is_given_its_time() {
        let mut observed = seen(Some("other"), 0);
        observed.record.duration = seconds(60);
        let decision = elect(Some(&observed), None, "me", &Params::default(), seconds(30));
        assert_eq!(decision, Decision::Wait(seconds(60)));
    }

    #[test]
    fn a_deleted_lease_is_not_free_before_its_holder_has_stopped() {
        let mut candidate = Candidate::new("me", Params::default());
        candidate.read(Some(seen(Some("other"), 0).record), seconds(0));
        candidate.read(None, seconds(5));
        assert!(!matches!(candidate.step(seconds(14)), Step::Write { .. }));
        candidate.read(None, seconds(15));
        let create = Step::Write { over: None, acquires: true };
        assert_eq!(candidate.step(seconds(15)), create);
    }

    /// What becomes of one call. Times are in ticks.
    #[derive(Debug, Clone, Copy)]
    struct Fate {
        there: u64,
        back: u64,
        lost_there: bool,
        lost_back: bool,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        (0..100_u64, 0..100_u64, 0..8_u8, 0..8_u8).prop_map(|(there, back, lost_there, lost_back)| Fate {
            // Most calls are quick, some are slower than their deadline.
            there: if there < 80 { there / 20 } else { there },
            back: if back < 80 { back / 20 } else { back },
            lost_there: lost_there == 0,
            lost_back: lost_back == 0,
        })
    }

    /// A time in which the calls of one elector get lost on one of their ways.
    #[derive(Debug, Clone, Copy)]
    struct Outage {
        elector: usize,
        from: u64,
        ticks: u64,
        answers_only: bool,
    }

    impl Outage {
        fn meets(&self, elector: usize, tick: u64) -> bool {
            self.elector == elector && (self.from..self.from + self.ticks).contains(&tick)
        }
    }

    fn outage() -> impl Strategy<Value = Outage> {
        (0..4_usize, 0..2400_u64, 0..600_u64, any::<bool>()).prop_map(|(elector, from, ticks, answers_only)| Outage {
            elector,
            from,
            ticks,
            answers_only,
        })
    }

    const TICK: Duration = Duration::from_millis(50);
    /// Ticks after which a caller gives up.
    const DEADLINE: u64 = 60;

    struct Flight {
        step: Step,
        began: Duration,
        arrives: Option<u64>,
        /// When the answer is read, once the server has given it.
        back: u64,
        lost_back: bool,
        answer: Option<(u64, Answer)>,
        given_up: u64,
    }

    #[derive(Clone)]
    enum Answer {
        Read(Option<Record>),
        Wrote(Record),
        Refused,
    }

    struct Elector {
        candidate: Candidate,
        flight: Option<Flight>,
        over: bool,
        offset: u64,
        /// Speed of its clock in thousandths.
        rate: u64,
        crashes_at: u64,
    }

    impl Elector {
        fn now(&self, tick: u64) -> Duration {
            Duration::from_millis(self.offset)
                + TICK * u32::try_from(tick).unwrap() * u32::try_from(self.rate).unwrap() / 1000
        }

        fn acts(&self, tick: u64) -> bool {
            !self.over && tick < self.crashes_at && self.candidate.acts_until().is_some_and(|end| self.now(tick) < end)
        }
    }

    struct World {
        record: Option<Record>,
        version: u64,
    }

    impl World {
        fn serve(&mut self, step: &Step, identity: &str, params: &Params) -> Answer {
            match step {
                Step::Read => Answer::Read(self.record.clone()),
                Step::Write { over, .. } => {
                    if *over != self.record.as_ref().and_then(|record| record.version.clone()) {
                        return Answer::Refused;
                    }
                    self.version += 1;
                    let record = Record {
                        holder: Some(identity.to_owned()),
                        duration: params.duration,
                        version: Some(self.version.to_string()),
                    };
                    self.record = Some(record.clone());
                    Answer::Wrote(record)
                }
                Step::Wait(_) | Step::Over => unreachable!("not a call"),
            }
        }
    }

    fn simulate(
        clocks: &[(u64, u64, u64)],
        fates: &[Fate],
        outages: &[Outage],
        ticks: u64,
        mut check: impl FnMut(u64, &[Elector]) -> Result<(), TestCaseError>,
    ) -> Result<(), TestCaseError> {
        let params = Params::default();
        let mut world = World { record: None, version: 0 };
        let mut late: Vec<(u64, usize, Step)> = Vec::new();
        let mut fates = fates.iter().cycle();
        let mut electors: Vec<Elector> = clocks
            .iter()
            .enumerate()
            .map(|(index, &(offset, rate, crashes_at))| Elector {
                candidate: Candidate::new(index.to_string(), params),
                flight: None,
                over: false,
                offset,
                rate,
                crashes_at,
            })
            .collect();
        for tick in 0..ticks {
            // Requests whose callers have given up or died arrive all the same.
            let (due, later): (Vec<_>, Vec<_>) = late.drain(..).partition(|(at, _, _)| *at <= tick);
            late = later;
            for (_, index, step) in due {
                world.serve(&step, &index.to_string(), &params);
            }
            for (index, elector) in electors.iter_mut().enumerate() {
                let now = elector.now(tick);
                if elector.over || tick >= elector.crashes_at {
                    if let Some(Flight { arrives: Some(at), step, .. }) = elector.flight.take() {
                        late.push((at, index, step));
                    }
                    continue;
                }
                if let Some(flight) = &mut elector.flight {
                    if flight.arrives.is_some_and(|at| at <= tick) {
                        flight.arrives = None;
                        let answer = world.serve(&flight.step, &index.to_string(), &params);
                        if !flight.lost_back {
                            flight.answer = Some((tick + flight.back, answer));
                        }
                    }
                    let began = flight.began;
                    match flight.answer.clone() {
                        Some((at, answer)) if at <= tick => {
                            elector.flight = None;
                            match answer {
                                Answer::Read(record) => elector.candidate.read(record, now),
                                Answer::Wrote(record) => elector.candidate.wrote(record, began, now),
                                Answer::Refused => elector.candidate.refused(now),
                            }
                        }
                        _ if flight.given_up <= tick => {
                            if let Some(at) = flight.arrives {
                                late.push((at, index, flight.step.clone()));
                            }
                            elector.flight = None;
                            elector.candidate.failed(now);
                        }
                        _ => (),
                    }
                }
                match elector.candidate.step(now) {
                    Step::Over => elector.over = true,
                    Step::Wait(_) => (),
                    Step::Read | Step::Write { .. } if elector.flight.is_some() => (),
                    step => {
                        let mut fate = *fates.next().unwrap();
                        for outage in outages.iter().filter(|outage| outage.meets(index, tick)) {
                            fate.lost_back = true;
                            fate.lost_there |= !outage.answers_only;
                        }
                        elector.flight = Some(Flight {
                            step,
                            began: now,
                            arrives: (!fate.lost_there).then_some(tick + fate.there),
                            back: fate.back,
                            lost_back: fate.lost_back,
                            answer: None,
                            given_up: tick + DEADLINE,
                        });
                    }
                }
            }
            check(tick, &electors)?;
        }
        Ok(())
    }

    proptest! {
        /// Clocks that differ by any offset and by two percent in speed, lost and late requests and answers, crashes:
        /// no two electors may act at the same moment.
        #[test]
        fn no_two_leaders_act_at_once(
            clocks in vec((0..10_000_000_u64, 980..=1020_u64, 0..6000_u64), 2..5),
            fates in vec(fate(), 1..200),
            outages in vec(outage(), 0..12),
        ) {
            simulate(&clocks, &fates, &outages, 2400, |tick, electors| {
                let acting: Vec<usize> = (0..electors.len()).filter(|index| electors[*index].acts(tick)).collect();
                prop_assert!(acting.len() <= 1, "{acting:?} act at tick {tick}");
                Ok(())
            })?;
        }

        /// With a working network somebody leads soon, keeps leading, and is followed within the lease's duration.
        #[test]
        fn a_dead_leader_is_followed(
            clocks in vec((0..10_000_000_u64, 980..=1020_u64), 2..5),
            death in 100..400_u64,
        ) {
            let quick = [Fate { there: 1, back: 1, lost_there: false, lost_back: false }];
            // The first one reads first and leads.
            let clocks: Vec<(u64, u64, u64)> = clocks
                .iter()
                .enumerate()
                .map(|(index, (offset, rate))| (*offset, *rate, if index == 0 { death } else { u64::MAX }))
                .collect();
            simulate(&clocks, &quick, &[], 1000, |tick, electors| {
                let leads = electors.iter().any(|elector| elector.acts(tick));
                let limit = death + 16_500 / 50;
                prop_assert!(leads || tick < 20 || (death..limit).contains(&tick), "nobody leads at tick {tick}");
                Ok(())
            })?;
        }
    }
}
