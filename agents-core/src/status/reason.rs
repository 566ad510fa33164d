//! Every reason the product gives, in one enum: the word users read in status, Events and metrics.

use std::fmt;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
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
        }
    };
}

reasons! {
    /// The run is a template and is never executed.
    Template,
    /// The spec can never become right as it stands.
    InvalidSpec,
    /// This version cannot read the run: a field has another shape than it knows.
    Unreadable,
    /// A template is too large or too deep, or rendering it would print or cost too much.
    TemplateLimit,
    /// The Agent named by the run does not exist.
    AgentNotFound,
    /// The AgentProvider named by the Agent does not exist.
    ProviderNotFound,
    /// The ImplementationSpec named by the run does not exist.
    ImplementationNotFound,
    /// An object that is referred to cannot be read as its kind, or its spec is faulty.
    ReferenceUnreadable,
    /// No adapter of the wanted runtime is configured.
    RuntimeNotConfigured,
    /// The run asks for something that this version of the controller does not carry out.
    NotSupported,
    /// The operator does not let runs have the service account that the run, its Agent or its provider names.
    ServiceAccountNotAllowed,
    /// `spec.suspend` is true.
    Suspended,
    /// An object of the name we would create belongs to someone else.
    Conflict,
    /// The runtime refused the submission.
    SubmitRejected,
    /// The runtime cannot be reached; the submission is repeated.
    RuntimeUnavailable,
    /// The API server does not take the status of the run; nothing is started whose record could not be stored.
    StatusRefused,
    /// Handed to the runtime, which has not started it yet.
    Starting,
    /// A quota of the namespace leaves no room for the pod.
    QuotaExceeded,
    /// No node can take the pod.
    Unschedulable,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// A Secret or a key of it is missing.
    SecretMissing,
    /// The container could not be started for another reason.
    StartFailed,
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
    ProviderMissing,
    /// The runner's spec is not what the plan says, cannot be read, or asks for what can never be done.
    RunnerSpecInvalid,
    /// The runner's spec does not have the digest of the plan.
    DigestMismatch,
    /// Arguments and variables of the provider together are more than the kernel takes.
    ArgumentsTooLong,
    /// The workspace cannot be prepared.
    PreflightFailed,
    /// The repository cannot be checked out.
    CheckoutFailed,
    /// An input file's path is not allowed or cannot be written.
    PathDenied,
    /// The provider exited 0 and a declared output does not exist.
    OutputMissing,
    /// Time ran out.
    DeadlineExceeded,
    /// The container used more memory than it may.
    OutOfMemory,
    /// The node gave the pod up.
    Evicted,
    /// What executed the attempt is gone and left no result.
    Lost,
    /// The attempt ended and left no report.
    ReportLost,
    /// The attempt's pod was changed after it was created, or its container was started again; its report is not believed.
    PodChanged,
    /// The runner failed on its own.
    RunnerFailed,
    /// `spec.cancel` is true.
    Cancelled,
    /// The run is being deleted.
    Deleted,
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
    /// Whether another attempt could end differently. A plan that the runner refuses stays refused.
    pub fn is_retryable(self) -> bool {
        !matches!(
            self,
            Self::InvalidSpec
                | Self::TemplateLimit
                | Self::RunnerSpecInvalid
                | Self::DigestMismatch
                | Self::ArgumentsTooLong
                | Self::PathDenied
                | Self::SubmitRejected
                | Self::PodChanged
                | Self::Cancelled
                | Self::Deleted
                | Self::DeadlineExceeded
        )
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
