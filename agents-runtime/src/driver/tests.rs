//! The queue's promises over a world of counters, under paused time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use agents_core::name::ChildName;
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const START: i64 = 1_000_000;

type Key = &'static str;

/// What a look at a key comes to.
#[derive(Debug, Clone, Copy)]
enum Look {
    Settled,
    WakeAt(i64),
    Fails(Class),
    /// Two submissions are refused.
    Refused,
    Panics,
}

#[derive(Default)]
struct State {
    script: BTreeMap<Key, Vec<Look>>,
    looks: Vec<(Key, Duration)>,
    running: BTreeSet<Key>,
    most: usize,
    overlapped: bool,
    /// Submissions whose refusals each decision had.
    refused: Vec<Vec<SubmissionKey>>,
}

fn submission(attempt: i32) -> Effect {
    let key = SubmissionKey::of_attempt("uid", attempt);
    let container = json!({
        "name": "agent", "image": "i", "command": [], "env": [], "requests": {}, "limits": {}, "mounts": [],
        "readOnlyRoot": true,
    });
    let pod = json!({
        "serviceAccount": "a", "initContainers": [], "container": container, "volumes": [],
        "runAs": {"user": 1, "group": 1, "fs_group": 1}, "graceSeconds": 1,
    });
    let submission = json!({
        "key": key, "runtime": "process", "name": ChildName::of("run", &key), "namespace": "ns",
        "owner": {"name": "run", "uid": "uid"}, "spec": {"provider": "p"}, "pod": pod, "secretEnv": [], "labels": {},
    });
    Effect::Submit(Box::new(serde_json::from_value(submission).unwrap()))
}

fn failure(class: Class) -> Failure {
    Failure {
        step: "gather",
        class,
        reason: Reason::RuntimeUnavailable,
        message: "as scripted".to_owned(),
        source: None,
    }
}

/// Answers by script; the last entry repeats.
struct Scripted {
    origin: Instant,
    takes: Duration,
    state: Mutex<State>,
}

impl Scripted {
    fn new(script: &[(Key, &[Look])], takes: Duration) -> Arc<Self> {
        let script = script.iter().map(|(key, looks)| (*key, looks.iter().rev().copied().collect())).collect();
        Arc::new(Self { origin: Instant::now(), takes, state: Mutex::new(State { script, ..State::default() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// When `key` was looked at, since the beginning.
    fn looks(&self, key: Key) -> Vec<Duration> {
        self.state().looks.iter().filter(|(looked, _)| *looked == key).map(|(_, at)| *at).collect()
    }
}

#[async_trait]
impl World for Scripted {
    type Key = Key;
    type Snapshot = (Key, Look);
    type Status = ();

    async fn gather(&self, key: &Key, _: &Confirm) -> Result<Option<(Key, Look)>, Failure> {
        let look = {
            let mut state = self.state();
            state.looks.push((*key, self.origin.elapsed()));
            state.overlapped |= !state.running.insert(*key);
            state.most = state.most.max(state.running.len());
            let Some(script) = state.script.get_mut(key) else {
                state.running.remove(key);
                return Ok(None);
            };
            if script.len() > 1 { script.pop().unwrap() } else { script[0] }
        };
        tokio::time::sleep(self.takes).await;
        self.state().running.remove(key);
        match look {
            Look::Panics => panic!("as scripted"),
            Look::Fails(class) => Err(failure(class)),
            Look::Settled | Look::WakeAt(_) | Look::Refused => Ok(Some((*key, look))),
        }
    }

    fn decide(&self, snapshot: &(Key, Look), refused: &[Refusal], _: Timestamp) -> Plan<()> {
        self.state().refused.push(refused.iter().map(|refusal| refusal.submission.clone()).collect());
        match snapshot.1 {
            Look::Refused if refused.is_empty() => {
                Plan { before: vec![submission(1), submission(2)], ..Plan::settled() }
            }
            Look::WakeAt(at) => Plan { wake: Some(Timestamp::from_second(START + at).unwrap()), ..Plan::settled() },
            Look::Settled | Look::Fails(_) | Look::Refused | Look::Panics => Plan::settled(),
        }
    }

    async fn perform(&self, _: &(Key, Look), _: &Effect) -> Result<(), Failure> {
        Err(failure(Class::WaitForChange))
    }

    async fn store(&self, _: &(Key, Look), (): &()) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(START).unwrap() + self.origin.elapsed()
    }
}

/// The times between looks.
fn waits(looks: &[Duration]) -> Vec<Duration> {
    looks.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}

/// Runs a driver for `time` after asking for `keys` at once.
async fn run(world: &Arc<Scripted>, concurrency: usize, keys: &[Key], time: Duration) {
    let driver = Driver::new(Arc::clone(world), Options { concurrency, ..Options::default() });
    let requests = driver.requests();
    for key in keys {
        requests.ask(*key);
    }
    let _ = tokio::time::timeout(time, driver.run(CancellationToken::new())).await;
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_panics_is_tried_again_and_stops_nobody_else() {
    let world =
        Scripted::new(&[("bad", &[Look::Panics, Look::Panics, Look::Settled]), ("good", &[Look::Settled])], SECOND);
    run(&world, 1, &["bad", "good"], 60 * SECOND).await;
    assert_eq!(world.looks("bad").len(), 3);
    assert_eq!(world.looks("good").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wake_comes_when_the_plan_says_and_not_before() {
    let world = Scripted::new(&[("a", &[Look::WakeAt(100), Look::WakeAt(100), Look::Settled])], Duration::ZERO);
    run(&world, 1, &["a"], 7200 * SECOND).await;
    let looks = world.looks("a");
    assert_eq!(looks.len(), 3, "the third is for a wake that has passed: {looks:?}");
    assert!(looks[1] >= 100 * SECOND && looks[1] < 101 * SECOND, "{looks:?}");
}

/// A wall clock that jumps would otherwise be noticed only when the timer ends.
#[tokio::test(start_paused = true)]
async fn a_wake_far_away_is_looked_at_on_the_way() {
    let world = Scripted::new(&[("a", &[Look::WakeAt(3000), Look::WakeAt(3000)])], Duration::ZERO);
    run(&world, 1, &["a"], 2900 * SECOND).await;
    let looks = world.looks("a");
    assert!(looks.len() > 3, "{looks:?}");
    assert!(waits(&looks).iter().all(|wait| *wait <= MAX_SLEEP + SECOND), "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_before_the_wake_takes_its_place() {
    let world = Scripted::new(&[("a", &[Look::WakeAt(100), Look::Settled])], Duration::ZERO);
    let driver = Driver::new(Arc::clone(&world), Options::default());
    let requests = driver.requests();
    requests.ask("a");
    let asking = async {
        tokio::time::sleep(10 * SECOND).await;
        requests.ask("a");
        std::future::pending::<()>().await;
    };
    let both = async { tokio::join!(driver.run(CancellationToken::new()), asking) };
    let _ = tokio::time::timeout(1000 * SECOND, both).await;
    assert_eq!(world.looks("a"), [Duration::ZERO, 10 * SECOND], "the old wake is forgotten");
}

#[tokio::test(start_paused = true)]
async fn failures_wait_longer_and_longer_up_to_a_bound_and_success_forgets_them() {
    let fails = Look::Fails(Class::Retry);
    let mut script = vec![fails; 14];
    script.extend([Look::WakeAt(1000), fails, Look::Settled]);
    let world = Scripted::new(&[("a", &script)], Duration::ZERO);
    run(&world, 1, &["a"], 7200 * SECOND).await;
    let looks = world.looks("a");
    let waits = waits(&looks);
    assert!(waits[0] <= MIN_BACKOFF + SECOND / 100, "{waits:?}");
    assert!(waits[..14].windows(2).all(|pair| pair[1] + MAX_BACKOFF / 4 >= pair[0]), "{waits:?}");
    assert!(waits[..14].iter().all(|wait| *wait <= MAX_BACKOFF + SECOND / 100), "{waits:?}");
    assert!(waits[13] >= MAX_BACKOFF / 2, "{waits:?}");
    assert!(waits[15] <= MIN_BACKOFF + SECOND / 100, "a failure after a success is the first one again: {waits:?}");
}

/// Asks for `key` every `every` beside a driver that runs for `time`, and answers with the looks.
async fn asked_all_the_time(world: &Arc<Scripted>, key: Key, every: Duration, time: Duration) -> Vec<Duration> {
    let driver = Driver::new(Arc::clone(world), Options::default());
    let requests = driver.requests();
    let asking = async {
        loop {
            requests.ask(key);
            tokio::time::sleep(every).await;
        }
    };
    let both = async { tokio::join!(driver.run(CancellationToken::new()), asking) };
    let _ = tokio::time::timeout(time, both).await;
    world.looks(key)
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_is_kept() {
    let later = Look::Fails(Class::RetryAfter(45 * SECOND));
    let world = Scripted::new(&[("a", &[later, Look::WakeAt(50), Look::Settled])], Duration::ZERO);
    let looks = asked_all_the_time(&world, "a", SECOND, 47 * SECOND).await;
    assert!(looks[1] >= 45 * SECOND && looks[1] <= 46 * SECOND, "{looks:?}");
    assert!(looks.len() > 2, "after a success it is looked at when asked for again: {looks:?}");
}

#[tokio::test(start_paused = true)]
async fn events_pass_no_backoff() {
    for look in [Look::Fails(Class::Retry), Look::Fails(Class::WaitForChange), Look::Panics, Look::Refused] {
        let world = Scripted::new(&[("a", &[look])], SECOND / 100);
        let mut looks = asked_all_the_time(&world, "a", SECOND / 10, 600 * SECOND).await;
        // A refusal is decided upon at once, which gathers anew.
        looks.dedup_by(|later, earlier| *later <= *earlier + SECOND / 50);
        let waits = waits(&looks);
        assert!(looks.len() < 40, "{look:?}: {} looks", looks.len());
        assert!(waits.windows(2).all(|pair| pair[1] + MAX_BACKOFF / 4 >= pair[0]), "{look:?}: {waits:?}");
        assert!(waits.iter().all(|wait| *wait <= MAX_BACKOFF + SECOND), "{look:?}: {waits:?}");
    }
}

/// Submissions are nothing to one another: each is tried, and all that were refused are decided upon together.
#[tokio::test(start_paused = true)]
async fn every_refusal_of_a_plan_is_decided_upon() {
    let world = Scripted::new(&[("a", &[Look::Refused])], Duration::ZERO);
    let settled = reconcile(&*world, &"a").await;
    assert!(matches!(settled, Ok(Settled::Refused(None))), "{settled:?}");
    let both = [1, 2].map(|attempt| SubmissionKey::of_attempt("uid", attempt));
    assert_eq!(world.state().refused, [vec![], both.to_vec()]);
}

/// What fails is held back, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_key_that_fails_delays_no_other() {
    let script: &[(Key, &[Look])] =
        &[("bad", &[Look::Fails(Class::RetryAfter(600 * SECOND))]), ("good", &[Look::Settled])];
    let world = Scripted::new(script, Duration::ZERO);
    let driver = Driver::new(Arc::clone(&world), Options { concurrency: 1, ..Options::default() });
    let requests = driver.requests();
    let asking = async {
        for _ in 0..100 {
            requests.ask("bad");
            requests.ask("good");
            tokio::time::sleep(SECOND).await;
        }
    };
    let both = async { tokio::join!(driver.run(CancellationToken::new()), asking) };
    let _ = tokio::time::timeout(100 * SECOND, both).await;
    assert_eq!(world.looks("bad").len(), 1);
    let good = world.looks("good");
    assert!(good.len() == 100 && good.iter().enumerate().all(|(n, at)| at.as_secs() == n as u64), "{good:?}");
}

/// A conflict is decided anew at once, and still cannot spin.
#[tokio::test(start_paused = true)]
async fn an_object_that_changes_all_the_time_is_not_chased_without_pause() {
    let world = Scripted::new(&[("a", &[Look::Fails(Class::RetryAfter(Duration::ZERO))])], Duration::ZERO);
    run(&world, 1, &["a"], 60 * SECOND).await;
    let count = world.looks("a").len();
    assert!((4..40).contains(&count), "{count} looks in a minute");
}

#[tokio::test(start_paused = true)]
async fn many_requests_are_one_look_and_those_during_it_one_more() {
    let world = Scripted::new(&[("a", &[Look::Settled])], SECOND);
    let driver = Driver::new(Arc::clone(&world), Options::default());
    let requests = driver.requests();
    (0..100).for_each(|_| requests.ask("a"));
    let asking = async {
        tokio::time::sleep(SECOND / 2).await;
        (0..100).for_each(|_| requests.ask("a"));
        std::future::pending::<()>().await;
    };
    let both = async { tokio::join!(driver.run(CancellationToken::new()), asking) };
    let _ = tokio::time::timeout(60 * SECOND, both).await;
    assert_eq!(world.looks("a").len(), 2);
    assert!(!world.state().overlapped, "one look per key at a time");
}

#[tokio::test(start_paused = true)]
async fn no_more_looks_at_once_than_allowed_and_none_is_forgotten() {
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let script: Vec<(Key, &[Look])> = keys.iter().map(|key| (*key, &[Look::Settled][..])).collect();
    let world = Scripted::new(&script, SECOND);
    run(&world, 3, &keys, 60 * SECOND).await;
    assert_eq!(world.state().most, 3);
    assert!(keys.iter().all(|key| world.looks(key).len() == 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_looked_at_again() {
    let world = Scripted::new(&[], Duration::ZERO);
    run(&world, 1, &["gone"], 3600 * SECOND).await;
    assert_eq!(world.looks("gone").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_looks_under_way_but_not_for_ever() {
    for (takes, within) in [(5 * SECOND, 5 * SECOND), (3600 * SECOND, Options::default().drain)] {
        let world = Scripted::new(&[("a", &[Look::Settled]), ("b", &[Look::Settled])], takes);
        let driver = Driver::new(Arc::clone(&world), Options { concurrency: 1, ..Options::default() });
        let (requests, stop) = (driver.requests(), CancellationToken::new());
        requests.ask("a");
        requests.ask("b");
        let stopping = async {
            tokio::time::sleep(SECOND / 10).await;
            stop.cancel();
        };
        let began = Instant::now();
        tokio::join!(driver.run(stop.clone()), stopping);
        let took = began.elapsed();
        assert!(took >= within && took <= within + SECOND, "{took:?}");
        assert!(world.looks("b").is_empty(), "nothing new is begun");
    }
}

/// A world whose every decision is dear, and counts them.
struct Dear(std::sync::atomic::AtomicUsize);

#[async_trait]
impl World for Dear {
    type Key = usize;
    type Snapshot = ();
    type Status = ();

    async fn gather(&self, _: &usize, _: &Confirm) -> Result<Option<()>, Failure> {
        Ok(Some(()))
    }

    fn decide(&self, (): &(), _: &[Refusal], _: Timestamp) -> Plan<()> {
        std::thread::sleep(DEAR);
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Plan::settled()
    }

    async fn perform(&self, (): &(), _: &Effect) -> Result<(), Failure> {
        Ok(())
    }

    async fn store(&self, (): &(), (): &()) -> Result<(), Failure> {
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Counted rather than timed: how many decisions are made while somebody else of the thread waits for its turn.
#[tokio::test]
async fn dear_decisions_leave_the_thread_to_others_after_each() {
    let world = Arc::new(Dear(std::sync::atomic::AtomicUsize::new(0)));
    let driver = Driver::new(Arc::clone(&world), Options::default());
    (0..40).for_each(|key| driver.requests().ask(key));
    let stop = CancellationToken::new();
    let work = tokio::spawn(driver.run(stop.clone()));
    let decided = || world.0.load(std::sync::atomic::Ordering::SeqCst);
    let (mut before, mut most) = (0, 0);
    while before < 40 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = decided();
        most = most.max(now - before);
        before = now;
    }
    stop.cancel();
    work.await.unwrap();
    assert!(most <= 2, "{most} decisions in a row");
}
