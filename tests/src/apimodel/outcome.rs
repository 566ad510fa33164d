//! What becomes of an attempt once its pod is there: scripted per run, played by the kubelet's actor.

use std::time::Duration;

/// What an attempt's pod does.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Exit 0 with a valid report, this long after the container's start.
    Succeed {
        /// Duration of the work.
        after: Duration,
    },
    /// The provider exits with this code; the report says so.
    Exit {
        /// Exit code of provider and container.
        code: i32,
        /// Duration of the work.
        after: Duration,
    },
    /// The provider is ended by this signal; the report says so.
    Signal {
        /// Number of the signal.
        signal: i32,
        /// Duration of the work.
        after: Duration,
    },
    /// The container exits with this code and no termination message.
    NoReport {
        /// Exit code of the container.
        code: i32,
        /// Duration of the work.
        after: Duration,
    },
    /// The container exits 0 with this termination message, whatever it is.
    Message {
        /// The termination message.
        text: String,
        /// Duration of the work.
        after: Duration,
    },
    /// Exit 0 with a valid report about another run.
    ForeignReport {
        /// Duration of the work.
        after: Duration,
    },
    /// The kernel kills the container for its memory: 137, OOMKilled, no report.
    OutOfMemory {
        /// Duration of the work.
        after: Duration,
    },
    /// The node evicts the pod: Failed, Evicted, no container statuses.
    Evicted {
        /// Time from the container's start to the eviction.
        after: Duration,
    },
    /// The pod vanishes with its node: no end is ever reported.
    NodeLost {
        /// Time from the container's start to the loss.
        after: Duration,
    },
    /// The node says nothing more of the pod, whatever it is asked, and the cluster begins to delete the pod for that.
    NodeSilent {
        /// Time from the container's start to the deletion.
        evicted_after: Duration,
    },
    /// Works until asked to stop, then stops within a second and reports Cancelled.
    Hang,
    /// Works until killed at the end of its grace; no report.
    IgnoreTerm,
    /// The image cannot be pulled.
    ImagePullFailure,
    /// A Secret that the container needs is missing.
    MissingSecret,
    /// No node fits.
    Unschedulable,
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Succeed { after: Duration::from_secs(5) }
    }
}

impl Outcome {
    /// How long after its start the container ends by itself; `None` when it does not.
    pub(super) fn ends_after(&self) -> Option<Duration> {
        match self {
            Self::Succeed { after }
            | Self::Exit { code: _, after }
            | Self::Signal { signal: _, after }
            | Self::NoReport { code: _, after }
            | Self::Message { text: _, after }
            | Self::ForeignReport { after }
            | Self::OutOfMemory { after }
            | Self::Evicted { after }
            | Self::NodeLost { after } => Some(*after),
            Self::NodeSilent { .. }
            | Self::Hang
            | Self::IgnoreTerm
            | Self::ImagePullFailure
            | Self::MissingSecret
            | Self::Unschedulable => None,
        }
    }
}
