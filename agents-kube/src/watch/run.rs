//! The loop of a watch: list in pages, then follow, and begin again where the API server says that it must.

use std::{sync::Arc, time::Duration};

use agents_core::kept::KEPT_WHOLE;
use agents_runtime::adapter::Class;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::{self, Instant};

use super::{
    Change, Key, Projection, Slot, Watch,
    lines::{Line, Lines, TooLong},
    store::{Said, Seen},
    version::Version,
};
use crate::client::{ApiError, ApiErrorKind, decode_text, told_in_watch};

/// Time beyond its own timeout after which a watch is ended from this side.
const MARGIN: Duration = Duration::from_secs(10);
/// A watch that ends sooner counts as a failure whatever it said: reopening it at once could go on for ever.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Objects of a list's first page, whose sizes nobody knows.
const FIRST_PAGE: u32 = 20;
/// About the length of every further page, in bytes: the API server holds a page whole, several times over.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Wait after the first failure, doubled for each further one.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// Longest wait after a failure: an API server that is back is noticed this soon.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Longest wait for a kind that may be missing for good.
const MAX_ABSENT_BACKOFF: Duration = Duration::from_secs(60);
/// Longest wait that the API server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(30);

/// How one watch ended.
enum Ended {
    /// Reopen it where it ended.
    Resume,
    /// Its version is too old, or what it said makes no sense: list again.
    Relist(ApiError),
    /// Try again later.
    Failed(ApiError),
}

/// What is read of an object that cannot be decoded, and of a bookmark.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    metadata: HeaderMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeaderMeta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
}

/// Decodes an object.
fn read<P: Projection>(raw: &[u8]) -> Result<Seen<P>, serde_json::Error> {
    let object: P = serde_json::from_slice(raw)?;
    // What is short needs no measuring: most objects are, and each event is one.
    let kept = (raw.len() > KEPT_WHOLE).then(|| object.kept()).flatten();
    let object = kept.unwrap_or(object);
    let identity = object.identity();
    Ok(Seen {
        key: Key::new(identity.namespace, identity.name),
        uid: identity.uid.into(),
        version: Version::parse(identity.resource_version),
        weight: object.weight(raw.len()),
        slot: Slot::Read(Arc::new(object)),
    })
}

/// Decodes an object, or what names it. `None` when not even that is possible.
fn read_or_named<P: Projection>(raw: &[u8]) -> Option<Seen<P>> {
    let error = match read(raw) {
        Ok(seen) => return Some(seen),
        Err(error) => error,
    };
    let Header { metadata } = serde_json::from_slice(raw).ok()?;
    if metadata.name.is_empty() {
        return None;
    }
    Some(Seen {
        key: Key::new(metadata.namespace, metadata.name),
        uid: metadata.uid.into(),
        version: Version::parse(&metadata.resource_version),
        weight: size_of::<Header>(),
        slot: Slot::Unreadable(decode_text(&error).into()),
    })
}

/// What an event of `kind` says of its object.
fn said(kind: &str) -> Option<Said> {
    match kind {
        "ADDED" | "MODIFIED" => Some(Said::Present),
        "DELETED" => Some(Said::Left),
        _ => None,
    }
}

impl<P: Projection> Watch<P> {
    /// Keeps the cache up to date and tells each change, for ever. It spawns nothing: dropping the future ends it.
    ///
    /// `tell` runs after the cache holds the change, and must not block.
    pub async fn run(self: Arc<Self>, mut tell: impl FnMut(Change<P>) + Send) {
        let mut failures = 0_u32;
        let mut round = 0_u64;
        let mut listed = Instant::now();
        loop {
            if self.store().position().is_none() {
                listed = Instant::now();
            }
            let error = match self.round(round, &mut failures, &mut tell).await {
                Ok(Ended::Resume) => None,
                Ok(Ended::Relist(error)) => {
                    self.store().lose_position();
                    Some(error)
                }
                Ok(Ended::Failed(error)) | Err(error) => Some(error),
            };
            round += 1;
            if listed.elapsed() >= self.settings.trusted_for {
                self.store().lose_position();
            }
            let Some(error) = error else {
                continue;
            };
            failures = failures.saturating_add(1);
            let absent =
                self.settings.may_be_absent && matches!(error.kind, ApiErrorKind::NotServed | ApiErrorKind::Forbidden);
            if absent && failures > 1 {
                tracing::debug!(kind = self.target.kind(), failures, %error, "the kind is still not there");
            } else if absent {
                tracing::warn!(kind = self.target.kind(), %error, "the kind is not installed or may not be read; it is left alone");
            } else {
                tracing::warn!(kind = self.target.kind(), failures, %error, "the watch is interrupted");
            }
            let most = if absent { MAX_ABSENT_BACKOFF } else { MAX_BACKOFF };
            let mut wait = backoff(self.settings.seed, failures, most);
            if let Class::RetryAfter(asked) = error.class {
                wait = wait.max(asked.min(MAX_ASKED));
            }
            *self.trouble() = Some(error.to_string());
            time::sleep(wait).await;
        }
    }

    /// Lists if there is no position, then follows one watch to its end.
    async fn round(
        &self,
        round: u64,
        failures: &mut u32,
        tell: &mut (impl FnMut(Change<P>) + Send),
    ) -> Result<Ended, ApiError> {
        let position = self.store().position().map(ToString::to_string);
        let position = match position {
            Some(position) => position,
            None => self.list(tell).await?,
        };
        let cut = self.settings.open_for / 10;
        let open_for = self.settings.open_for.saturating_sub(share(cut, self.settings.seed, round));
        let opened = self.calls.open_watch(&self.target, "watch", &self.scope, &position, open_for).await;
        let body = match opened {
            Ok(body) => body,
            Err(error) if error.kind == ApiErrorKind::Gone => return Ok(Ended::Relist(error)),
            Err(error) => return Ok(Ended::Failed(error)),
        };
        let (mut chunks, mut lines) = (body.into_data_stream(), Lines::default());
        let opened = Instant::now();
        let end = opened + open_for + MARGIN;
        let mut heard = false;
        // Ends in mid-line and broken connections are the ordinary end of a watch.
        let resume = |failures: &mut u32| {
            if opened.elapsed() < TOO_SHORT {
                return Ended::Failed(unavailable("the watch ended at once"));
            }
            *failures = 0;
            Ended::Resume
        };
        loop {
            let silent = (Instant::now() + self.settings.silence).min(end);
            let line = loop {
                match lines.next() {
                    Ok(Some(line)) => break line,
                    Ok(None) => {}
                    Err(TooLong) => return Ok(resume(failures)),
                }
                match time::timeout_at(silent, chunks.next()).await {
                    Ok(Some(Ok(chunk))) => lines.push(chunk),
                    Ok(Some(Err(_)) | None) => return Ok(resume(failures)),
                    // An API server whose data was restored to an earlier version has nothing to say for as long as that takes.
                    Err(_) => return Ok(Ended::Relist(unavailable("the watch fell silent"))),
                }
            };
            match self.line(&line, tell) {
                Ok(()) if !heard => {
                    heard = true;
                    *self.trouble() = None;
                }
                Ok(()) => {}
                Err(Ended::Resume) => return Ok(resume(failures)),
                Err(ended) => return Ok(ended),
            }
        }
    }

    /// Takes in one line.
    fn line(&self, line: &[u8], tell: &mut (impl FnMut(Change<P>) + Send)) -> Result<(), Ended> {
        if let Some(Line { kind, object }) = Line::presumed(line)
            && let Some(said) = said(kind)
            && let Ok(seen) = read(object)
        {
            self.event(said, seen, tell);
            return Ok(());
        }
        let Line { kind, object } = match Line::read(line) {
            Ok(line) => line,
            // The connection was cut in mid-line.
            Err(error) if error.is_eof() => return Err(Ended::Resume),
            Err(error) => return Err(Ended::Relist(ApiError::undecodable("read the watch", &error))),
        };
        if let Some(said) = said(kind) {
            let Some(seen) = read_or_named(object) else {
                tracing::warn!(kind = self.target.kind(), "an event names no object and is ignored");
                return Ok(());
            };
            self.event(said, seen, tell);
            return Ok(());
        }
        match kind {
            "BOOKMARK" => {
                let header: Header = serde_json::from_slice(object)
                    .map_err(|error| Ended::Relist(ApiError::undecodable("read a bookmark", &error)))?;
                let version = Version::parse(&header.metadata.resource_version);
                self.store().reach(&version, self.boot());
                Ok(())
            }
            "ERROR" => {
                let error = told_in_watch(&self.target, object);
                Err(match error.kind {
                    ApiErrorKind::Gone => Ended::Relist(error),
                    _ => Ended::Failed(error),
                })
            }
            _ => Ok(()),
        }
    }

    fn event(&self, said: Said, seen: Seen<P>, tell: &mut (impl FnMut(Change<P>) + Send)) {
        let now = self.boot();
        let change = self.store().event(said, seen, now);
        if let Some(change) = change {
            tell(change);
        }
    }

    /// Replaces the cache by a consistent list and returns its version.
    async fn list(&self, tell: &mut (impl FnMut(Change<P>) + Send)) -> Result<String, ApiError> {
        let began = self.boot();
        self.store().begin_list();
        let mut next = None;
        let mut version = None;
        let mut limit = FIRST_PAGE.min(self.settings.page);
        loop {
            let take = |raw: &[u8]| {
                let Some(seen) = read_or_named(raw) else {
                    tracing::warn!(kind = self.target.kind(), "a listed object has no name and is ignored");
                    return;
                };
                let now = self.boot();
                let change = self.store().listed(seen, now);
                if let Some(change) = change {
                    tell(change);
                }
            };
            let page = self.calls.list(&self.target, "list", &self.scope, limit, next, take).await?;
            limit = page_after(page.objects, page.bytes).clamp(1, self.settings.page);
            let version = version.get_or_insert(page.resource_version);
            next = page.next;
            if next.is_some() {
                continue;
            }
            let now = self.boot();
            let left = self.store().end_list(Version::parse(version), began, now);
            left.into_iter().for_each(tell);
            *self.trouble() = None;
            self.synced.send_replace(true);
            return Ok(std::mem::take(version));
        }
    }
}

/// How many objects of the size of those on the last page make a page of [`PAGE_BYTES`].
fn page_after(objects: usize, bytes: usize) -> u32 {
    let each = bytes.checked_div(objects).unwrap_or_default().max(1);
    u32::try_from(PAGE_BYTES / each).unwrap_or(u32::MAX)
}

fn unavailable(message: &str) -> ApiError {
    ApiError::new("watch", ApiErrorKind::Unavailable, message)
}

/// The wait after this many failures in a row: doubled each time up to `most`, up to a quarter less by seed.
fn backoff(seed: u64, failures: u32, most: Duration) -> Duration {
    let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let full = MIN_BACKOFF.saturating_mul(factor).min(most);
    full.saturating_sub(share(full / 4, seed, u64::from(failures)))
}

/// A share of `whole` that depends on the arguments alone.
fn share(whole: Duration, seed: u64, count: u64) -> Duration {
    let mut x = seed ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let parts = u32::try_from(x % 1024).unwrap_or_default();
    whole / 1024 * parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_long_whatever_is_on_them() {
        for each in [300, 10_000, 1_300_000] {
            let bytes = usize::try_from(page_after(20, 20 * each)).expect("a number of objects") * each;
            assert!((PAGE_BYTES - each..=PAGE_BYTES).contains(&bytes), "{each}: {bytes}");
        }
        assert_eq!(page_after(1, 2 * PAGE_BYTES), 0, "one object is always asked for");
        assert!(page_after(0, 90) > 500, "an empty page says nothing of the next");
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ_by_seed() {
        let mut last = Duration::ZERO;
        for failures in 1..=40 {
            let wait = backoff(7, failures, MAX_BACKOFF);
            assert!(wait >= MIN_BACKOFF * 3 / 4 && wait <= MAX_BACKOFF, "{failures}: {wait:?}");
            assert!(wait * 2 > last, "{failures}: {wait:?} after {last:?}");
            last = wait;
        }
        assert!(last >= MAX_BACKOFF * 3 / 4);
        let first: Vec<Duration> = (0..20).map(|seed| backoff(seed, 3, MAX_BACKOFF)).collect();
        assert!(first.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
