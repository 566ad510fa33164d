//! The start of an attempt: everything a run needs first, what may hold it, and what is handed to the runtime.

use jiff::Timestamp;

use super::{
    Blocker, Decision, RECHECK_SECONDS, SLOW_START_SECONDS, current_attempt, current_key, emit, first_possible,
    outcome::Outcome,
    record::{Submitted, Warning},
    retry, room, runtime_of, told,
    warning::warning,
};
use crate::{
    api::{AgentRunStatus, agent_run::Phase, runtime::RuntimeKind},
    decide::{Confirm, Effect, Plan},
    marks::{LABEL_AGENT, LABEL_ATTEMPT, LABEL_PROVIDER, LABEL_RUN, LABEL_RUN_UID},
    mutant::{self, Mutant},
    name::SubmissionKey,
    plan::{self, ExecutionPlan, pod::PodPlan},
    policy::{self, Subject, Verdict},
    resolve::{Resolved, Unresolved, resolve},
    runtime::{Owner, Submission},
    status::{Reason, after, seconds},
};

impl Decision<'_> {
    /// Nothing of the current attempt is recorded or seen: start it, unless something is in the way.
    pub(super) fn not_submitted(&self) -> Plan<AgentRunStatus> {
        if let Some((reason, message)) = self.user_wants_to_stop() {
            if let Some(confirm) = self.unproven() {
                return confirm;
            }
            let mut record = self.record();
            record.terminal(Phase::Cancelled, reason, &message, self.now);
            return told(record);
        }
        if self.deadline().is_some_and(|deadline| self.now >= deadline) {
            return self.fail(Reason::DeadlineExceeded, "no time was left for another attempt");
        }
        let first = current_attempt(self.run().status.as_ref()) == 1;
        if let Some(most) = self.settings.max_object_bytes
            && first
            && let Some(fault) = room::fault(self.run(), most)
        {
            return self.invalid(&fault);
        }
        match resolve(self.run(), &self.snapshot.references) {
            Err(Unresolved::Invalid(faults)) => {
                let text: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.problem)).collect();
                self.invalid(&text.join("; "))
            }
            Err(Unresolved::Missing(missing)) => {
                let mut blockers: Vec<_> = missing.into_iter().map(Blocker::missing).collect();
                blockers.extend(self.held().map(|(blocker, _)| blocker));
                self.block(&blockers, None, None)
            }
            Ok(_) if !self.snapshot.is_whole() => match self.held() {
                // It is planned once nothing holds it any more.
                Some((blocker, until)) => self.block(&[blocker], None, until),
                None => Plan::confirm(Confirm::whole()),
            },
            Ok(resolved) => self.start(&resolved),
        }
    }

    /// An end without an attempt is for good: it wants to know that none was submitted, not only that none was seen.
    pub(super) fn unproven(&self) -> Option<Plan<AgentRunStatus>> {
        let proven = self.sighting.consistent && self.snapshot.object_proven;
        (!proven).then(|| Plan::confirm(Confirm::submission(current_key(self.run())).and(Confirm::object())))
    }

    fn invalid(&self, message: &str) -> Plan<AgentRunStatus> {
        self.never_right(Reason::InvalidSpec, message)
    }

    fn never_right(&self, reason: Reason, message: &str) -> Plan<AgentRunStatus> {
        if let Some(confirm) = self.unproven() {
            return confirm;
        }
        let mut record = self.record();
        record.invalid(reason, message);
        told(record)
    }

    pub(super) fn fail(&self, reason: Reason, message: &str) -> Plan<AgentRunStatus> {
        if let Some(confirm) = self.unproven() {
            return confirm;
        }
        let mut record = self.record();
        record.terminal(Phase::Failed, reason, message, self.now);
        told(record)
    }

    /// What holds a run that is otherwise ready, and until when.
    pub(super) fn held(&self) -> Option<(Blocker, Option<Timestamp>)> {
        if self.run().spec.suspend == Some(true) {
            return Some((Blocker::suspended(), None));
        }
        let last = self.run().status.as_ref()?.attempts.last()?;
        let start = retry::start_of_next(self.run(), last)?;
        if self.now >= start {
            return None;
        }
        let reason = last.reason.as_deref().and_then(Reason::parse).unwrap_or(Reason::Lost);
        let message = last.message.as_deref().unwrap_or_default();
        Some((Blocker::backoff(last.number, reason, message, start), Some(start)))
    }

    pub(super) fn block(
        &self,
        blockers: &[Blocker],
        warning: Option<Warning>,
        wake: Option<Timestamp>,
    ) -> Plan<AgentRunStatus> {
        let mut record = self.record();
        record.warn(warning);
        record.blocked(blockers);
        let wake = [wake, self.deadline()].into_iter().flatten().min();
        Plan { wake, ..record.into_plan() }
    }

    /// What the operator's rules say of the pod; there is none to judge where the runtime has none.
    fn judged(&self, resolved: &Resolved, pod: &PodPlan, runtime: RuntimeKind) -> Verdict {
        match runtime {
            RuntimeKind::Process => Verdict::Allow,
            RuntimeKind::Job
            | RuntimeKind::Workflow
            | RuntimeKind::Argo
            | RuntimeKind::Temporal
            | RuntimeKind::Custom
            | RuntimeKind::Other(_) => {
                let service_account_at = resolved.service_account_at.as_deref();
                let default_account = &self.settings.defaults.service_account;
                let subject = Subject { namespace: &resolved.namespace, pod, default_account, service_account_at };
                policy::judge(&self.settings.policy, subject)
            }
        }
    }

    /// Starts a run that has everything it refers to, unless something is in the way. Rendering costs far more than all
    /// the rest and comes last: what waits is looked at again and again.
    fn start(&self, resolved: &Resolved) -> Plan<AgentRunStatus> {
        let run = self.run();
        let number = current_attempt(run.status.as_ref());
        let runtime = runtime_of(run, &self.snapshot.references, self.settings);
        let warning = warning(resolved);
        if let Some((blocker, until)) = self.held() {
            return self.block(&[blocker], warning, until);
        }
        let unsupported = unsupported(resolved, runtime);
        if !unsupported.is_empty() {
            return self.block(&[Blocker::unsupported(&unsupported)], warning, None);
        }
        if !self.settings.runtimes.contains(&runtime) {
            return self.block(&[Blocker::no_runtime(runtime)], warning, None);
        }
        let pod = plan::pod_of(resolved, &self.settings.defaults);
        match self.judged(resolved, &pod, runtime) {
            Verdict::Allow => {}
            Verdict::Deny(denial) => return self.block(&[Blocker::denied(denial)], warning, None),
            Verdict::Wait(denial, until) => return self.block(&[Blocker::denied(denial)], warning, Some(until)),
        }
        if !self.snapshot.object_proven {
            return Plan::confirm(Confirm::object());
        }
        // It was planned when it was refused.
        let key = current_key(run);
        match self.refused.iter().find(|refusal| refusal.submission == key) {
            Some(refusal) if refusal.terminal => return self.fail(refusal.reason, &refusal.message),
            Some(refusal) => {
                let again = after(self.now, seconds(RECHECK_SECONDS));
                return self.block(&[Blocker::refused(refusal)], warning, Some(again));
            }
            None => {}
        }
        let execution = match plan::plan_with(resolved, &self.settings.defaults, pod) {
            Ok(execution) => execution,
            // The run was right when its first attempt began: what has changed since can be changed back.
            Err(error) if number > 1 => {
                let object = format!("AgentProvider/{}", resolved.provider);
                return self.block(&[Blocker::unrenderable(object, error.to_string())], warning, None);
            }
            Err(error) => {
                let message = format!("AgentProvider/{}: {error}", resolved.provider);
                return self.never_right(error.reason(), &message);
            }
        };
        let submitted = Submitted { digest: execution.digest.clone(), warning: warning.clone() };
        // Nothing was planned before.
        let _ = self.planned.set(Some(submitted));
        if let Some(blind) = self.snapshot.blind_since
            && first_possible(run).is_some_and(|first| first < blind)
            && (number == 1 || !mutant::is_on(Mutant::DoubtsFirstAttemptsOnly))
        {
            if !self.sighting.consistent {
                return self.confirm();
            }
            return self.end(&Outcome::lost_unseen(blind, self.now));
        }
        if let Some(unstored) = &self.snapshot.unstored {
            return self.try_to_store(unstored, warning);
        }
        let left = self.deadline().map(|deadline| deadline.duration_since(self.now).as_secs().max(1));
        let timeout = left.or(resolved.terms.timeout_seconds).and_then(|left| u64::try_from(left).ok());
        let submission = submission_of(resolved, execution, runtime, number, timeout);
        let told = emit(Reason::Submitted, &format!("attempt {number} was handed to {runtime} as {}", submission.name));
        Plan {
            before: vec![Effect::Submit(Box::new(submission))],
            after: vec![told],
            wake: Some(after(self.now, seconds(SLOW_START_SECONDS))),
            ..Plan::settled()
        }
    }
}

/// What is asked for and not carried out on this runtime.
fn unsupported(resolved: &Resolved, runtime: RuntimeKind) -> Vec<String> {
    let in_pods = match runtime {
        RuntimeKind::Process => &[][..],
        RuntimeKind::Job
        | RuntimeKind::Workflow
        | RuntimeKind::Argo
        | RuntimeKind::Temporal
        | RuntimeKind::Custom
        | RuntimeKind::Other(_) => &resolved.unsupported_in_pods,
    };
    resolved.unsupported.iter().chain(in_pods).cloned().collect()
}

/// What is handed over as an attempt.
pub(super) fn submission_of(
    resolved: &Resolved,
    execution: ExecutionPlan,
    runtime: RuntimeKind,
    number: i32,
    timeout: Option<u64>,
) -> Submission {
    let ExecutionPlan { mut spec, pod, digest: _ } = execution;
    spec.run.attempt = number;
    spec.limits.timeout_seconds = timeout;
    let key = SubmissionKey::of_attempt(&resolved.uid, number);
    let label = |name: &str, value: &str| (name.to_owned(), crate::name::label_value(value));
    Submission {
        name: crate::name::ChildName::of(&resolved.run, &key),
        runtime,
        namespace: resolved.namespace.clone(),
        owner: Owner { name: resolved.run.clone(), uid: resolved.uid.clone() },
        labels: [
            label(LABEL_RUN, &resolved.run),
            label(LABEL_RUN_UID, &resolved.uid),
            label(LABEL_ATTEMPT, &number.to_string()),
            label(LABEL_AGENT, &resolved.agent),
            label(LABEL_PROVIDER, &resolved.provider),
        ]
        .into(),
        key,
        spec,
        pod,
        secret_env: resolved.secret_env.clone(),
    }
}
