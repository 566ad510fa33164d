//! One watch: the history from a version on, cut by selectors as the watch cache does, with bookmarks, ends and faults.

use std::{collections::VecDeque, future::pending, io, sync::Arc, time::Duration};

use futures::Stream;
use serde_json::{Value, json};

use super::{
    answer::Refusal,
    fault::WatchFault,
    request::Request,
    resource::{Resource, Target},
    selector::Selector,
    store::{Change, Commit, Moment},
    world::{ClientId, Shared, State},
};

/// The annotation of the bookmark that ends the initial events.
const INITIAL_END: &str = "k8s.io/initial-events-end";

enum Item {
    Line(Value),
    HalfLine(Value),
    Broken,
}

enum Step {
    Ready,
    Wait(Option<Duration>),
    Dead,
}

pub(super) struct Watcher {
    shared: Arc<Shared>,
    client: ClientId,
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    metadata_only: bool,
    bookmarks: bool,
    cursor: usize,
    version: u64,
    queue: VecDeque<Item>,
    held: Option<Value>,
    blocked_until: Duration,
    next_bookmark: Duration,
    ends_at: Option<Duration>,
    closed: bool,
    changed: tokio::sync::watch::Receiver<u64>,
}

impl Watcher {
    /// Opens the watch, with what must be sent at once already queued.
    pub(super) fn open(
        shared: &Arc<Shared>,
        client: ClientId,
        request: &Request,
        target: &Target,
        state: &State,
        now: Moment,
    ) -> Result<Self, Refusal> {
        let selector =
            Selector::parse(target.resource, request.param("labelSelector"), request.param("fieldSelector"))?;
        let asked = request.param("resourceVersion");
        let from: u64 = if asked.is_empty() {
            0
        } else {
            asked
                .parse()
                .map_err(|_| Refusal::unmapped(format!("Invalid value: {asked:?}: invalid resource version")))?
        };
        let initial = request.param("sendInitialEvents") == "true";
        if initial && request.param("resourceVersionMatch") != "NotOlderThan" {
            return Err(Refusal::invalid(
                target.resource,
                "",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let timeout = request.param("timeoutSeconds").parse().ok().filter(|s| *s > 0).map(Duration::from_secs);
        let mut watcher = Self {
            shared: Arc::clone(shared),
            client,
            resource: target.resource,
            namespace: target.namespace.clone(),
            selector,
            metadata_only: request.metadata_only,
            bookmarks: request.param("allowWatchBookmarks") == "true",
            cursor: 0,
            version: from,
            queue: VecDeque::new(),
            held: None,
            blocked_until: Duration::ZERO,
            next_bookmark: now.boot + state.settings.bookmarks,
            ends_at: timeout.map(|timeout| now.boot + timeout),
            closed: false,
            changed: shared.changed.subscribe(),
        };
        if from == 0 || initial {
            let lag = if asked == "0" { state.faults.lag_of(target.resource.plural) } else { Duration::ZERO };
            watcher.version = if lag.is_zero() { state.store.version() } else { state.store.version_behind(now, lag) };
            for (key, object) in state.store.at_version(watcher.version) {
                if key.resource == watcher.resource
                    && watcher.covers(&key.namespace)
                    && watcher.selector.matches(&object)
                {
                    watcher.queue.push_back(Item::Line(json!({"type": "ADDED", "object": watcher.shown(&object)})));
                }
            }
            if initial && watcher.bookmarks {
                let end = watcher.bookmark(watcher.version, true);
                watcher.queue.push_back(Item::Line(end));
            }
        } else if from < state.store.compacted() {
            let gone = Refusal::expired(format!("too old resource version: {from} ({})", state.store.compacted()));
            watcher.queue.push_back(Item::Line(json!({"type": "ERROR", "object": gone.body()})));
            watcher.closed = true;
        }
        watcher.cursor = state.store.history().partition_point(|commit| commit.version <= watcher.version);
        Ok(watcher)
    }

    /// The lines of the watch, each ended by a newline.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Vec<u8>, io::Error>> + Send + 'static {
        futures::stream::unfold(self, |mut watcher| async move { watcher.next().await.map(|item| (item, watcher)) })
    }

    async fn next(&mut self) -> Option<Result<Vec<u8>, io::Error>> {
        loop {
            let shared = Arc::clone(&self.shared);
            if let Some(item) = self.queue.pop_front() {
                if !shared.with(|state, _| state.is_alive(self.client)) {
                    pending::<()>().await;
                }
                return Some(match item {
                    Item::Line(value) => Ok(format!("{value}\n").into_bytes()),
                    Item::HalfLine(value) => {
                        let mut line = value.to_string().into_bytes();
                        line.truncate(line.len() / 2);
                        Ok(line)
                    }
                    Item::Broken => Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")),
                });
            }
            if self.closed {
                return None;
            }
            self.changed.mark_unchanged();
            match shared.with(|state, now| self.step(state, now)) {
                Step::Ready => {}
                Step::Dead => pending().await,
                Step::Wait(until) => {
                    let sleep = async {
                        match until {
                            Some(at) => tokio::time::sleep_until(shared.clock.instant(at)).await,
                            None => pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        _ = self.changed.changed() => {}
                        () = sleep => {}
                    }
                }
            }
        }
    }

    fn step(&mut self, state: &mut State, now: Moment) -> Step {
        if !state.is_alive(self.client) {
            return Step::Dead;
        }
        let lag = state.faults.lag_of(self.resource.plural);
        let mut wake = self.ends_at;
        let sooner = |wake: &mut Option<Duration>, at: Duration| {
            *wake = Some(wake.map_or(at, |had: Duration| had.min(at)));
        };
        while let Some(commit) = state.store.history().get(self.cursor) {
            let mine = commit.key.resource == self.resource && self.covers(&commit.key.namespace);
            let due = (commit.at + lag).max(self.blocked_until);
            if mine && due > now.boot {
                sooner(&mut wake, due);
                break;
            }
            self.cursor += 1;
            self.version = commit.version;
            let event = if mine { self.event(commit) } else { None };
            let Some(event) = event else { continue };
            let fault =
                if state.is_faultable(self.client) { state.faults.decide_event(self.resource.plural) } else { None };
            self.deliver(event, fault, now);
            return Step::Ready;
        }
        if self.ends_at.is_some_and(|at| at <= now.boot) {
            self.release();
            self.closed = true;
            return Step::Ready;
        }
        if self.bookmarks && self.next_bookmark <= now.boot && self.blocked_until <= now.boot {
            self.release();
            self.next_bookmark = now.boot + state.settings.bookmarks;
            let version = self.bookmark_version(state, now, lag);
            let bookmark = self.bookmark(version, false);
            self.queue.push_back(Item::Line(bookmark));
            return Step::Ready;
        }
        if self.bookmarks {
            sooner(&mut wake, self.next_bookmark.max(self.blocked_until));
        }
        Step::Wait(wake)
    }

    /// What the watch cache can vouch for: the last event of this resource, or the last progress etcd reported.
    fn bookmark_version(&self, state: &State, now: Moment, lag: Duration) -> u64 {
        let Some(seen) = now.boot.checked_sub(lag) else {
            return self.version;
        };
        let every = state.settings.progress.as_millis().max(1);
        let tick = seen.as_millis() / every * every;
        let tick = Duration::from_millis(u64::try_from(tick).unwrap_or(u64::MAX));
        let own = state.store.version_at(seen, Some(self.resource));
        // Progress is reported after what was committed at the same instant.
        own.max(state.store.version_at(tick, None))
    }

    fn deliver(&mut self, event: Value, fault: Option<WatchFault>, now: Moment) {
        match fault {
            None => {
                self.queue.push_back(Item::Line(event));
                self.release();
            }
            Some(WatchFault::Drop) => {}
            Some(WatchFault::Duplicate) => {
                self.queue.push_back(Item::Line(event.clone()));
                self.queue.push_back(Item::Line(event));
                self.release();
            }
            Some(WatchFault::SwapWithNext) => {
                self.release();
                self.held = Some(event);
            }
            Some(WatchFault::Delay(by)) => {
                // Taken back, to be delivered when the delay is over.
                self.cursor -= 1;
                self.blocked_until = now.boot + by;
            }
            Some(WatchFault::Disconnect) => {
                self.queue.push_back(Item::Broken);
                self.closed = true;
            }
            Some(WatchFault::End) => self.closed = true,
            Some(WatchFault::Gone) => {
                let gone = Refusal::expired("too old resource version");
                self.queue.push_back(Item::Line(json!({"type": "ERROR", "object": gone.body()})));
                self.closed = true;
            }
            Some(WatchFault::Garbage) => {
                self.queue.push_back(Item::HalfLine(event));
                self.closed = true;
            }
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.queue.push_back(Item::Line(held));
        }
    }

    fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }

    /// The event a commit is to this watch. An object that leaves the selection is DELETED in its previous state
    /// under the new version, and one that was outside before is nobody's event.
    fn event(&self, commit: &Commit) -> Option<Value> {
        let Commit { version, at: _, key: _, change, object, previous } = commit;
        let before = previous.as_ref().is_some_and(|previous| self.selector.matches(previous));
        let after = *change != Change::Deleted && self.selector.matches(object);
        let (kind, object) = match (before, after) {
            (false, true) => ("ADDED", object.clone()),
            (true, true) => ("MODIFIED", object.clone()),
            (true, false) => {
                let mut last = previous.clone().unwrap_or_default();
                last["metadata"]["resourceVersion"] = json!(version.to_string());
                ("DELETED", last)
            }
            (false, false) => return None,
        };
        Some(json!({"type": kind, "object": self.shown(&object)}))
    }

    fn shown(&self, object: &Value) -> Value {
        if self.metadata_only {
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
        } else {
            object.clone()
        }
    }

    fn bookmark(&self, version: u64, initial: bool) -> Value {
        let mut object = json!({
            "apiVersion": self.resource.api_version(), "kind": self.resource.kind,
            "metadata": {"resourceVersion": version.to_string()},
        });
        if initial {
            object["metadata"]["annotations"] = json!({INITIAL_END: "true"});
        }
        if !self.resource.custom {
            // A typed bookmark is an empty object of its type, not a bare one.
            object["metadata"]["creationTimestamp"] = Value::Null;
            match self.resource.plural {
                "jobs" => {
                    object["spec"] =
                        json!({"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": null}}});
                    object["status"] = json!({});
                }
                "pods" => {
                    object["spec"] = json!({"containers": null});
                    object["status"] = json!({});
                }
                _ => {}
            }
        }
        json!({"type": "BOOKMARK", "object": object})
    }
}
