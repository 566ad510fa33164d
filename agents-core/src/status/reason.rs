//! Every reason the product gives, in one enum: the word users read in status, Events and metrics.
//!
//! A row has all that goes with a reason wherever it is given. What a row does not say does not hold.

use std::fmt;

use super::exit;

/// What goes with a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Another attempt could not end differently: a plan that the runner refuses stays refused.
    for_good: bool,
    /// What waits for it waits until a person changes something.
    by_hand: bool,
    /// It holds an attempt only so long; then the attempt fails.
    bounded: bool,
    /// What ends the wait, when nobody has a better word.
    unblocked_by: &'static str,
    /// What the runner exits with; 0 when it gives no such reason, or more than the reason tells the code.
    exit: i32,
}

impl Row {
    const NOTHING: Self = Self { for_good: false, by_hand: false, bounded: false, unblocked_by: "", exit: 0 };
}

macro_rules! value {
    () => {
        true
    };
    ($value:expr) => {
        $value
    };
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $({ $($key:ident $(: $value:expr)?),+ })?,)+) => {
        /// Why something is as it is, in one CamelCase word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        /// Every reason with its meaning, in the order of a run's life.
        pub const ALL_REASONS: &[(Reason, &str)] = &[$((Reason::$name, concat!($($doc),+))),+];

        impl Reason {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// The reason of that word.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $(stringify!($name) => Some(Self::$name),)+ _ => None }
            }

            fn row(self) -> Row {
                match self { $(Self::$name => Row { $($($key: value!($($value)?),)+)? ..Row::NOTHING }),+ }
            }
        }
    };
}

reasons! {
    /// The run is a template and is never executed.
    Template,
    /// The spec can never become right as it stands.
    InvalidSpec { for_good },
    /// This version cannot read the run: a field has another shape than it knows.
    Unreadable,
    /// A template is too large or too deep, or rendering it would print or cost too much.
    TemplateLimit { for_good },
    /// The Agent named by the run does not exist.
    AgentNotFound { by_hand },
    /// The AgentProvider named by the Agent does not exist.
    ProviderNotFound { by_hand },
    /// The ImplementationSpec named by the run does not exist.
    ImplementationNotFound { by_hand },
    /// The Signal named by the delivery does not exist.
    SignalNotFound { by_hand },
    /// An object that is referred to cannot be read as its kind, or its spec is faulty.
    ReferenceUnreadable { by_hand },
    /// No adapter of the wanted runtime is configured.
    RuntimeNotConfigured { by_hand },
    /// The run asks for something that this version of the controller does not carry out.
    NotSupported { by_hand },
    /// The operator does not let runs have the service account that the run, its Agent or its provider names.
    ServiceAccountNotAllowed { by_hand },
    /// `spec.suspend` is true.
    Suspended { by_hand, unblocked_by: "set spec.suspend to false" },
    /// An object of the name we would create belongs to someone else; or another delivery of the same id says something else.
    Conflict { by_hand, unblocked_by: "delete or rename the object of that name" },
    /// The payload is not as its Signal wants it.
    PayloadRejected { by_hand },
    /// Another delivery of the same id, which says the same, was delivered before.
    Duplicate,
    /// The runtime refused the submission.
    SubmitRejected { for_good },
    /// The runtime cannot be reached; the submission is repeated.
    RuntimeUnavailable,
    /// The API server does not take the status of the run; nothing is started whose record could not be stored.
    StatusRefused,
    /// Handed to the runtime, which has not started it yet.
    Starting { unblocked_by: "the runtime starts it by itself" },
    /// A quota of the namespace leaves no room for the pod.
    QuotaExceeded { unblocked_by: "make room in the quota, or ask for less; it is tried again by itself" },
    /// No node can take the pod.
    Unschedulable { unblocked_by: "make room on a node, or ask for less" },
    /// The image cannot be pulled.
    ImagePullFailed { bounded, unblocked_by: "make the image pullable" },
    /// A Secret or a key of it is missing.
    SecretMissing { by_hand, bounded, unblocked_by: "create the Secret with that key" },
    /// The container could not be started for another reason.
    StartFailed { bounded },
    /// The provider is running.
    Running,
    /// The node does not say that the attempt ended, although its time there is over; it may still run.
    NodeUnreachable,
    /// A failed attempt is followed by another after a wait.
    Backoff,
    /// The provider exited 0 and every declared output exists.
    Completed,
    /// The provider exited with another code than 0.
    ProviderExited,
    /// The provider was ended by a signal that nobody of ours sent.
    ProviderSignaled,
    /// The provider's binary is not there or not executable.
    ProviderMissing { exit: exit::PREFLIGHT },
    /// The runner's spec is not what the plan says, cannot be read, or asks for what can never be done.
    RunnerSpecInvalid { for_good, exit: exit::BAD_SPEC },
    /// The runner's spec does not have the digest of the plan.
    DigestMismatch { for_good, exit: exit::BAD_SPEC },
    /// Arguments and variables of the provider together are more than the kernel takes.
    ArgumentsTooLong { for_good, exit: exit::BAD_SPEC },
    /// The workspace cannot be prepared.
    PreflightFailed { exit: exit::PREFLIGHT },
    /// The repository cannot be checked out.
    CheckoutFailed { exit: exit::PREFLIGHT },
    /// An input file's path is not allowed or cannot be written.
    PathDenied { for_good, exit: exit::PREFLIGHT },
    /// The provider exited 0 and a declared output does not exist.
    OutputMissing { exit: exit::OUTPUT_MISSING },
    /// Time ran out.
    DeadlineExceeded { for_good, exit: exit::DEADLINE },
    /// The container used more memory than it may.
    OutOfMemory,
    /// The node gave the pod up.
    Evicted,
    /// What executed the attempt is gone and left no result.
    Lost,
    /// The attempt ended and left no report.
    ReportLost,
    /// The attempt's pod was changed after it was created, or its container was started again; its report is not believed.
    PodChanged { for_good },
    /// The runner failed on its own.
    RunnerFailed { exit: exit::INTERNAL },
    /// `spec.cancel` is true.
    Cancelled { for_good, exit: exit::CANCELLED },
    /// The run is being deleted.
    Deleted { for_good },
    /// The condition holds or not without anything to add.
    AsExpected,
    /// The spec says one thing twice; the message says which one counts.
    Ambiguous,
    /// The run gives something that this version does not use; what is executed is the same without it.
    NotUsed,
    /// A text of the work holds what people do not see, such as control characters or an HTML comment; it arrives as it is.
    HiddenText,
    /// The spec was changed after it was submitted; what was submitted goes on.
    SpecChanged,
    /// The run was handed to the runtime.
    Submitted,
    /// The attempt started.
    Started,
    /// This version stores and checks the kind and does not act on it yet.
    NotActedOn,
}

impl Reason {
    /// Whether another attempt could end differently.
    pub fn is_retryable(self) -> bool {
        !self.row().for_good
    }

    /// Whether what waits for it waits until a person changes something.
    pub fn is_cured_by_hand(self) -> bool {
        self.row().by_hand
    }

    /// Whether it fails an attempt that it holds for long. A pod that no node can take may wait for a new node for ever.
    pub fn is_bounded(self) -> bool {
        self.row().bounded
    }

    /// What ends the wait for it, when nobody has a better word.
    pub fn unblocked_by(self) -> Option<&'static str> {
        Some(self.row().unblocked_by).filter(|text| !text.is_empty())
    }

    /// What the runner exits with when it gives this reason, if the reason alone tells it.
    pub fn exit_code(self) -> Option<i32> {
        Some(self.row().exit).filter(|code| *code != 0)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_documented_and_reads_back() {
        for (reason, doc) in ALL_REASONS {
            assert!(doc.trim().ends_with('.'), "{reason}: {doc:?}");
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("NotAReason"), None);
    }
}
