//! One object of a cluster, followed as a person waits for it: what it is now, and what keeps the cluster from saying so.
//!
//! Nothing is decided by what is seen here, so that a watch whose age nobody proves is enough.

use std::{fmt, pin::Pin, time::Duration};

use agents_core::api::VERSION;
use futures::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::time::{Instant, sleep_until};

use crate::client::{in_words, is_page};

/// A cluster that has not answered at all by then is not there; connecting alone may take ten seconds.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// The network of a pod that has just started may need this long.
const SETTLING: Duration = Duration::from_secs(3);

/// What is to be known of the object.
#[derive(Debug)]
pub enum Seen {
    /// What it is now.
    Object(Box<DynamicObject>),
    /// It is not there.
    Absent,
    /// The cluster, which is there, cannot answer; it is asked again. Said once until it answers.
    Trouble(String),
}

/// Why an object cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Nothing that speaks for a cluster: no connection, no trust, no credentials, or something else that answers.
    #[error("the cluster does not answer: {0}")]
    Silence(String),
    /// The cluster has no definition of the kind, which is named as plural and group.
    #[error("this cluster does not serve {0} in the version {VERSION}: its definition is not installed")]
    NotServed(String),
    /// The object may not be watched.
    #[error("cannot watch {object} in the namespace {namespace}: {refusal}")]
    Refused {
        /// Singular and name, as `kubectl` writes them.
        object: String,
        /// Its namespace.
        namespace: String,
        /// What the API server says.
        refusal: String,
    },
    /// The watch is over, which it never is by itself.
    #[error("the watch of {0} has ended")]
    Ended(String),
}

type Changes = Pin<Box<dyn Stream<Item = watcher::Result<Option<DynamicObject>>> + Send>>;

/// An object as people write it: `agentrun/NAME`.
pub fn title(resource: &ApiResource, name: &str) -> String {
    format!("{}/{name}", resource.kind.to_lowercase())
}

/// An object that is followed.
pub struct Follow {
    changes: Changes,
    resource: String,
    /// Singular and name.
    title: String,
    namespace: String,
    began: Instant,
    answered: bool,
    told: bool,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follow({} in {})", self.title, self.namespace)
    }
}

impl Follow {
    /// Begins to follow the object of that name, whether it is there or not.
    pub fn new(client: Client, namespace: &str, resource: &ApiResource, name: &str) -> Self {
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, resource);
        Self {
            changes: Box::pin(watcher::watch_object(api, name).default_backoff()),
            resource: format!("{}.{}", resource.plural, resource.group),
            title: title(resource, name),
            namespace: namespace.to_owned(),
            began: Instant::now(),
            answered: false,
            told: false,
        }
    }

    /// What there is to be known next. Loses nothing when it is given up in between.
    ///
    /// # Errors
    /// Nothing more is to be known.
    pub async fn next(&mut self) -> Result<Seen, FollowError> {
        loop {
            let change = tokio::select! {
                change = self.changes.next() => change,
                () = sleep_until(self.began + FIRST_ANSWER), if !self.answered => {
                    return Err(FollowError::Silence(format!("nothing came in {} s", FIRST_ANSWER.as_secs())));
                }
            };
            let trouble = match change {
                Some(Ok(object)) => {
                    (self.answered, self.told) = (true, false);
                    return Ok(object.map_or(Seen::Absent, |object| Seen::Object(Box::new(object))));
                }
                Some(Err(error)) => trouble(&error),
                None => return Err(FollowError::Ended(self.title.clone())),
            };
            let trouble = match trouble {
                Trouble::NotServed => return Err(FollowError::NotServed(self.resource.clone())),
                Trouble::Refusal(refusal) => {
                    return Err(FollowError::Refused {
                        object: self.title.clone(),
                        namespace: self.namespace.clone(),
                        refusal,
                    });
                }
                Trouble::Silence(_) if !self.answered && self.began.elapsed() < SETTLING => continue,
                Trouble::Silence(silence) if !self.answered => return Err(FollowError::Silence(silence)),
                Trouble::Silence(silence) => format!("the cluster does not answer: {silence}"),
                Trouble::Passing(message) => {
                    self.answered = true;
                    format!("the cluster cannot answer now: {message}")
                }
                Trouble::Cut => continue,
            };
            if !self.told {
                self.told = true;
                return Ok(Seen::Trouble(trouble));
            }
        }
    }
}

/// What an error of a watch means for the next attempt.
#[derive(Debug)]
enum Trouble {
    /// The kind itself is not there: of an object that is not there, a list is empty.
    NotServed,
    /// An answer that will not change by asking again.
    Refusal(String),
    /// An answer that may.
    Passing(String),
    /// No answer, or none of a cluster.
    Silence(String),
    /// Watches end all the time; whether the cluster still answers shows when the next one starts.
    Cut,
}

fn trouble(error: &watcher::Error) -> Trouble {
    let error = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        watcher::Error::WatchError(_) | watcher::Error::WatchFailed(_) => return Trouble::Cut,
        watcher::Error::NoResourceVersion => return Trouble::Silence(error.to_string()),
    };
    match error {
        kube::Error::Api(status) if is_page(status) => Trouble::Silence(in_words(error)),
        kube::Error::Api(status) if status.code == 404 => Trouble::NotServed,
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Trouble::Refusal(status.message.clone()),
        // One that is not current any more: the list that follows has the present one.
        kube::Error::Api(status) if status.code == 410 => Trouble::Cut,
        kube::Error::Api(status) => Trouble::Passing(format!("{} ({})", status.message, status.code)),
        error => Trouble::Silence(in_words(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_be_final_and_silence_is_none() {
        let answer = |code: u16| {
            let status = kube::core::Status::failure("no", "R").with_code(code);
            trouble(&watcher::Error::InitialListFailed(kube::Error::Api(status.boxed())))
        };
        assert!(matches!(answer(404), Trouble::NotServed));
        for code in [401, 403] {
            assert!(matches!(answer(code), Trouble::Refusal(_)), "{code}");
        }
        for code in [429, 500, 503] {
            assert!(matches!(answer(code), Trouble::Passing(_)), "{code}");
        }
        assert!(matches!(answer(410), Trouble::Cut));
        assert!(matches!(trouble(&watcher::Error::WatchFailed(kube::Error::TlsRequired)), Trouble::Cut));
        assert!(matches!(trouble(&watcher::Error::WatchStartFailed(kube::Error::TlsRequired)), Trouble::Silence(_)));
    }
}
