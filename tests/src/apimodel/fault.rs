//! What goes wrong, as data: rules over requests and over watch events, each enumerable by count or drawn from the
//! world's seed.

use std::{collections::BTreeMap, time::Duration};

use super::{
    answer::Refusal,
    request::{Request, Verb},
};

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Refused with this HTTP status; nothing stored.
    Reject(u16),
    /// Refused with this HTTP status in these words; nothing stored.
    Refuse(u16, Words),
    /// 429 with this `Retry-After`, garbage included; `None` sends no header.
    Throttle(Option<String>),
    /// Stored, then answered with this status: the ambiguous 504.
    CommitThenReject(u16),
    /// Stored, then the connection breaks.
    CommitThenDrop,
    /// The connection breaks; nothing stored.
    DropBeforeCommit,
    /// The connection breaks now, and the request is carried out this much later.
    CommitLate(Duration),
    /// Carried out and answered this much later.
    Delay(Duration),
    /// Carried out now, answered this much later.
    DelayResponse(Duration),
    /// Never answered, nothing stored.
    Blackhole,
    /// Stored, never answered.
    CommitThenBlackhole,
    /// A read answered from the state this long ago.
    StaleBy(Duration),
    /// Answered with 200 and a body cut in half.
    TruncatedBody,
    /// The client dies: before the request is carried out, inside it, or after its answer.
    Crash(CrashAt),
}

/// Who speaks in a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// The API server, about the object of the request.
    OfTheObject,
    /// The API server, about its namespace.
    OfAnother,
    /// An admission webhook, through the API server.
    OfAWebhook,
    /// A proxy, in HTML.
    Html,
    /// Nobody.
    Nothing,
    /// The API server about the object, cut in half.
    Cut,
}

impl Words {
    /// The body of an answer.
    pub(super) fn body(self, code: u16, request: &Request) -> Vec<u8> {
        let status = |refusal: Refusal| refusal.body().to_string().into_bytes();
        match self {
            Self::OfTheObject => status(Refusal::scripted(code).of(request)),
            Self::OfAnother => status(Refusal::scripted(code).of_namespace(request)),
            Self::OfAWebhook => status(Refusal::scripted(code).by_webhook(request)),
            Self::Html => b"<html><body>no</body></html>".to_vec(),
            Self::Nothing => vec![],
            Self::Cut => {
                let whole = status(Refusal::scripted(code).of(request));
                whole[..whole.len() / 2].to_vec()
            }
        }
    }
}

/// Where in a request its client dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashAt {
    /// Nothing stored.
    Before,
    /// Stored; the answer is never seen.
    Inside,
    /// Stored and answered; nothing the client does afterwards reaches the server.
    After,
}

/// One point of an enumeration: the n-th write (from 1) and the position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CrashPoint {
    /// Number of the write, from 1; leases and events do not count.
    pub write: usize,
    /// Position in it.
    pub at: CrashAt,
}

impl CrashPoint {
    /// Every point of a workload that made `writes` writes in its clean run.
    pub fn all(writes: usize) -> impl Iterator<Item = Self> {
        (1..=writes).flat_map(|write| [CrashAt::Before, CrashAt::Inside, CrashAt::After].map(|at| Self { write, at }))
    }

    /// The rule that crashes here.
    pub fn rule(self) -> Rule {
        self.rule_among(When::effects())
    }

    /// The rule that crashes here when `when` is what counts as a write.
    pub fn rule_among(self, when: When) -> Rule {
        Rule::new(when, Fault::Crash(self.at)).nth(self.write)
    }
}

/// Which requests a rule is about. Starts from everything; each method narrows.
#[derive(Debug, Clone, Default)]
pub struct When {
    verb: Option<Verb>,
    resource: Option<&'static str>,
    subresource: Option<bool>,
    namespace: Option<String>,
    name: Option<String>,
    client: Option<String>,
    effects: bool,
    writes: bool,
    verdicts: bool,
}

impl When {
    /// Every request of the controllers.
    pub fn any() -> Self {
        Self::default()
    }

    /// Every write, leases, events and the status of declarations excepted.
    pub fn effects() -> Self {
        Self { effects: true, ..Self::default() }
    }

    /// Every write, leases and the status of declarations excepted.
    pub fn writes() -> Self {
        Self { writes: true, ..Self::default() }
    }

    /// Every write of the status of a declaration.
    pub fn verdicts() -> Self {
        Self { verdicts: true, ..Self::default() }
    }

    /// Only this verb.
    #[must_use]
    pub fn verb(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// Only this resource, by plural.
    #[must_use]
    pub fn on(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }

    /// Only (or never) `/status`.
    #[must_use]
    pub fn status(self, status: bool) -> Self {
        Self { subresource: Some(status), ..self }
    }

    /// Only in this namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// Only objects of this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Only the client of this name.
    #[must_use]
    pub fn from(self, client: &str) -> Self {
        Self { client: Some(client.to_owned()), ..self }
    }

    pub(super) fn matches(&self, request: &Request, client: &str) -> bool {
        let Self { verb, resource, subresource, namespace, name, client: wanted, effects, writes, verdicts } = self;
        let asked_in = request.target.as_ref().and_then(|target| target.namespace.as_deref());
        verb.is_none_or(|verb| verb == request.verb)
            && resource.is_none_or(|plural| request.plural() == plural)
            && subresource.is_none_or(|status| request.is_status() == status)
            && namespace.as_deref().is_none_or(|namespace| asked_in == Some(namespace))
            && name.as_deref().is_none_or(|name| request.name.as_deref() == Some(name))
            && wanted.as_deref().is_none_or(|wanted| wanted == client)
            && (!effects || request.is_effect())
            && (!writes || request.is_write())
            && (!verdicts || request.is_verdict())
    }
}

/// A fault and when it strikes.
#[derive(Debug, Clone)]
pub struct Rule {
    when: When,
    fault: Fault,
    skip: usize,
    times: Option<usize>,
    permille: Option<u16>,
}

impl Rule {
    /// Strikes the first matching request, once.
    pub fn new(when: When, fault: Fault) -> Self {
        Self { when, fault, skip: 0, times: Some(1), permille: None }
    }

    /// Strikes from the `n`-th matching request on, counted from 1.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        Self { skip: n.saturating_sub(1), ..self }
    }

    /// Strikes this many times in a row.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Strikes until the rules are cleared.
    #[must_use]
    pub fn forever(self) -> Self {
        Self { times: None, ..self }
    }

    /// Strikes each matching request with this chance in a thousand, drawn from the seed.
    #[must_use]
    pub fn chance(self, permille: u16) -> Self {
        Self { permille: Some(permille), ..self }
    }
}

/// What happens to an event of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchFault {
    /// Not delivered.
    Drop,
    /// Delivered twice.
    Duplicate,
    /// Delivered after the one that follows it.
    SwapWithNext,
    /// It and all after it are delivered this much later.
    Delay(Duration),
    /// Instead of it the stream breaks.
    Disconnect,
    /// Instead of it the stream ends in order.
    End,
    /// Instead of it an ERROR event with 410, and the end.
    Gone,
    /// Instead of it half a line, and the end.
    Garbage,
}

/// A watch fault and the event it strikes: the `nth` event of a resource over all watches of the controllers, from 1.
#[derive(Debug, Clone)]
pub struct WatchRule {
    /// Plural of the resource.
    pub resource: &'static str,
    /// First event struck.
    pub nth: usize,
    /// How many in a row.
    pub times: usize,
    /// What happens.
    pub fault: WatchFault,
}

/// All rules of a world, with what they have counted.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<(Rule, usize, usize)>,
    watch_rules: Vec<WatchRule>,
    watch_events: BTreeMap<&'static str, usize>,
    lag: BTreeMap<&'static str, Duration>,
    random: u64,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: seed | 1, ..Self::default() }
    }

    /// Adds a rule. Of the rules that match a request the first that strikes counts.
    pub fn rule(&mut self, rule: Rule) {
        self.rules.push((rule, 0, 0));
    }

    /// Adds a watch rule.
    pub fn watch_rule(&mut self, rule: WatchRule) {
        self.watch_rules.push(rule);
    }

    /// Watches and version-0 reads of this resource are this much behind, from now on.
    pub fn lag(&mut self, resource: &'static str, by: Duration) {
        self.lag.insert(resource, by);
    }

    /// Nothing goes wrong any more.
    pub fn clear(&mut self) {
        self.rules.clear();
        self.watch_rules.clear();
        self.lag.clear();
    }

    /// How often rules have struck; a test whose rules never strike tests nothing.
    pub fn struck(&self) -> usize {
        self.rules.iter().map(|(_, _, struck)| struck).sum()
    }

    pub(super) fn lag_of(&self, resource: &str) -> Duration {
        self.lag.get(resource).copied().unwrap_or_default()
    }

    pub(super) fn decide(&mut self, request: &Request, client: &str) -> Option<Fault> {
        let mut decided = None;
        for (rule, seen, struck) in &mut self.rules {
            if !rule.when.matches(request, client) {
                continue;
            }
            *seen += 1;
            let due = *seen > rule.skip && rule.times.is_none_or(|times| *seen <= rule.skip + times);
            let due = match rule.permille {
                None => due,
                Some(permille) => {
                    self.random ^= self.random << 13;
                    self.random ^= self.random >> 7;
                    self.random ^= self.random << 17;
                    *seen > rule.skip && self.random % 1000 < u64::from(permille)
                }
            };
            if due && decided.is_none() {
                *struck += 1;
                decided = Some(rule.fault.clone());
            }
        }
        decided
    }

    pub(super) fn decide_event(&mut self, resource: &'static str) -> Option<WatchFault> {
        let count = self.watch_events.entry(resource).or_default();
        *count += 1;
        self.watch_rules
            .iter()
            .find(|rule| rule.resource == resource && (rule.nth..rule.nth + rule.times).contains(count))
            .map(|rule| rule.fault)
    }
}

impl Fault {
    /// The refusal it answers with, if it refuses.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Reject(code) | Self::CommitThenReject(code) => Some(Refusal::scripted(*code)),
            Self::Throttle(after) => {
                let mut refusal = Refusal::scripted(429);
                refusal.retry_after.clone_from(after);
                Some(refusal)
            }
            Self::Refuse(..)
            | Self::CommitThenDrop
            | Self::DropBeforeCommit
            | Self::CommitLate(_)
            | Self::Delay(_)
            | Self::DelayResponse(_)
            | Self::Blackhole
            | Self::CommitThenBlackhole
            | Self::StaleBy(_)
            | Self::TruncatedBody
            | Self::Crash(_) => None,
        }
    }
}
