//! What a manifest may ask for and this version does not carry out.
//!
//! Everything is destructured without `..`, so that a new field has to say which of three it is: carried out (`_`), left
//! out with a warning, or waited for, because a run without it would be another run than the one asked for.

use crate::{
    api::{
        AgentProviderSpec, AgentRunSpec, AgentSpec, ImplementationSpecSpec,
        agent::{AgentDefaults, AgentSecurity},
        agent_provider::{Adapter, ProviderWorkload, UsageSource},
        agent_run::{Coordinates, Execution, RetryMode, RetryPolicy, VcsMode, VcsPolicy},
        runtime::JobRuntime,
        workflow::Workflow,
        workload::Workload,
    },
    plan::RUNNER_PATH,
};

/// What is asked for and not carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unsupported {
    /// Fields without which the run would be another one.
    pub(super) needed: Vec<String>,
    /// The same, of settings that only a pod has.
    pub(super) needed_in_pods: Vec<String>,
    /// What is left out, for people.
    pub(super) warnings: Vec<String>,
}

impl Unsupported {
    fn need(&mut self, asked: bool, field: impl Into<String>) {
        if asked {
            self.needed.push(field.into());
        }
    }

    fn need_in_pods(&mut self, asked: bool, field: impl Into<String>) {
        if asked {
            self.needed_in_pods.push(field.into());
        }
    }

    fn leave_out(&mut self, asked: bool, what: &str) {
        if asked {
            self.warnings.push(what.to_owned());
        }
    }

    /// Looks at a run.
    pub(super) fn run(&mut self, spec: &AgentRunSpec) {
        let AgentRunSpec {
            agent_ref: _,
            implementation_spec_ref: _,
            implementation_ref: _,
            implementation: _,
            goal,
            idempotency_key: _,
            delivery_id: _,
            parameters: _,
            payloads: _,
            system_prompt,
            system_prompt_ref,
            secrets,
            memory_ref,
            budget_ref,
            approval_policy_ref,
            workspace_ref,
            vcs_ref,
            vcs_policy,
            execution,
            workload,
            runtime: _,
            runtime_overrides: _,
            provider,
            workflow,
            priority,
            outputs: _,
            retry_policy,
            timeout_seconds: _,
            suspend: _,
            cancel: _,
            ttl_seconds_after_finished,
        } = spec;
        self.need(goal.is_some(), "spec.goal");
        self.need(system_prompt.is_some(), "spec.systemPrompt");
        self.need(system_prompt_ref.is_some(), "spec.systemPromptRef");
        self.need(!secrets.is_empty(), "spec.secrets");
        self.need(memory_ref.is_some(), "spec.memoryRef");
        self.need(budget_ref.is_some(), "spec.budgetRef");
        self.need(approval_policy_ref.is_some(), "spec.approvalPolicyRef");
        self.need(workspace_ref.is_some(), "spec.workspaceRef");
        let VcsPolicy { required, mode } = vcs_policy.unwrap_or_default();
        self.need(required == Some(true), "spec.vcsPolicy.required");
        // Nothing holds a run back that may do less than fetch and push.
        self.need(matches!(mode, Some(VcsMode::ReadOnly | VcsMode::None)), "spec.vcsPolicy.mode");
        self.leave_out(vcs_ref.is_some() && required != Some(true), "spec.vcsRef is not used: no access is arranged");
        if let Some(Execution { coordinates: Some(Coordinates { git: _, workspace }) }) = execution {
            self.need_in_pods(workspace.is_some(), "spec.execution.coordinates.workspace");
        }
        if let Some(Workload { image: _, resources: _, volumes }) = workload {
            self.need_in_pods(!volumes.is_empty(), "spec.workload.volumes");
        }
        self.leave_out(!provider.is_empty(), "spec.provider is not used");
        self.leave_out(priority.is_some(), "spec.priority is not used: nothing queues runs");
        if let Some(Workflow { steps }) = workflow {
            self.need(!steps.is_empty(), "spec.workflow.steps");
        }
        let RetryPolicy { limit: _, backoff_seconds: _, mode } = retry_policy.unwrap_or_default();
        self.leave_out(mode == Some(RetryMode::Resume), "no conversation is resumed: every attempt starts anew");
        self.leave_out(
            ttl_seconds_after_finished.is_some(),
            "spec.ttlSecondsAfterFinished is not used: finished runs are kept",
        );
    }

    /// Looks at an Agent.
    pub(super) fn agent(&mut self, object: &str, spec: &AgentSpec) {
        let AgentSpec {
            provider_ref: _,
            inputs: _,
            payloads: _,
            env: _,
            runtime: _,
            resources: _,
            config: _,
            provider,
            memory_ref,
            vcs_ref,
            security,
            concurrency,
            // Nothing is told to these systems unless the controller is connected to them.
            observability: _,
            defaults,
        } = spec;
        self.leave_out(!provider.is_empty(), &format!("{object} spec.provider is not used"));
        self.leave_out(memory_ref.is_some(), &format!("{object} spec.memoryRef is not used: no Memory is connected"));
        self.leave_out(vcs_ref.is_some(), &format!("{object} spec.vcsRef is not used: no access is arranged"));
        let AgentSecurity {
            // Pods never go beyond "restricted".
            allow_privileged: _,
            allowed_service_accounts,
            allowed_secrets,
            allowed_images,
            allowed_implementation_source_providers,
        } = security.clone().unwrap_or_default();
        self.need(allowed_service_accounts.is_some(), format!("{object} spec.security.allowedServiceAccounts"));
        self.need(allowed_secrets.is_some(), format!("{object} spec.security.allowedSecrets"));
        self.need(allowed_images.is_some(), format!("{object} spec.security.allowedImages"));
        self.need(
            allowed_implementation_source_providers.is_some(),
            format!("{object} spec.security.allowedImplementationSourceProviders"),
        );
        self.need(concurrency.and_then(|limits| limits.limit).is_some(), format!("{object} spec.concurrency.limit"));
        if let Some(AgentDefaults { timeout_seconds: _, retry_limit: _, system_prompt, system_prompt_ref }) = defaults {
            self.need(system_prompt.is_some(), format!("{object} spec.defaults.systemPrompt"));
            self.need(system_prompt_ref.is_some(), format!("{object} spec.defaults.systemPromptRef"));
        }
    }

    /// Looks at an AgentProvider.
    pub(super) fn provider(&mut self, object: &str, spec: &AgentProviderSpec) {
        let AgentProviderSpec {
            binary,
            args_template: _,
            env_template: _,
            input_files: _,
            secret_env: _,
            output_artifacts,
            input_schema,
            usage,
            // Nothing is resumed, as the run is told.
            resume: _,
            adapter,
            // Nothing holds a provider's runs, with or without it.
            health: _,
            workload,
        } = spec;
        self.leave_out(!output_artifacts.is_empty(), &format!("{object} spec.outputArtifacts are not stored"));
        self.leave_out(input_schema.is_some(), &format!("{object} spec.inputSchema is not checked"));
        if let Some(UsageSource { parser: _, file }) = usage {
            self.leave_out(file.is_some(), &format!("{object} spec.usage.file is not read: usage stays unknown"));
        }
        let runner = binary == RUNNER_PATH || binary == "agent-runner";
        let plain = adapter.as_ref().is_none_or(|Adapter { kind, exec, others }| {
            kind.as_deref().is_none_or(|kind| kind == "exec") && exec.is_none() && others.is_empty()
        });
        self.need(runner || !plain, format!("{object} spec.adapter"));
        if let Some(ProviderWorkload {
            image: _,
            resources: _,
            service_account_name: _,
            volumes,
            service_account_token,
        }) = workload
        {
            self.need_in_pods(!volumes.is_empty(), format!("{object} spec.workload.volumes"));
            self.need_in_pods(service_account_token.is_some(), format!("{object} spec.workload.serviceAccountToken"));
        }
    }

    /// Looks at a work item.
    pub(super) fn work_item(&mut self, object: &str, spec: &ImplementationSpecSpec) {
        let ImplementationSpecSpec {
            text: _,
            summary: _,
            description: _,
            acceptance_criteria: _,
            labels: _,
            source: _,
            contract,
            vcs_ref,
        } = spec;
        let required = contract.as_ref().is_some_and(|contract| !contract.required_keys.is_empty());
        self.need(required, format!("{object}.contract.requiredKeys"));
        self.leave_out(vcs_ref.is_some(), &format!("{object}.vcsRef is not used: no access is arranged"));
    }

    /// Looks at the settings of a Job, after all layers.
    pub(super) fn job(&mut self, settings: &JobRuntime) {
        let JobRuntime {
            image: _,
            command,
            service_account: _,
            service_account_name: _,
            resources: _,
            node_selector,
            tolerations,
            affinity,
            topology_spread_constraints,
            pod_security_context,
            priority_class_name,
            scheduler_name,
            image_pull_secrets,
            backoff_limit,
            ttl_seconds_after_finished,
            log_retention_seconds: _,
        } = settings;
        let field = |name: &str| format!("runtime.job.{name}");
        self.need_in_pods(!node_selector.is_empty(), field("nodeSelector"));
        self.need_in_pods(!tolerations.is_empty(), field("tolerations"));
        self.need_in_pods(affinity.is_some(), field("affinity"));
        self.need_in_pods(!topology_spread_constraints.is_empty(), field("topologySpreadConstraints"));
        self.need_in_pods(pod_security_context.is_some(), field("podSecurityContext"));
        self.need_in_pods(priority_class_name.is_some(), field("priorityClassName"));
        self.need_in_pods(scheduler_name.is_some(), field("schedulerName"));
        self.need_in_pods(!image_pull_secrets.is_empty(), field("imagePullSecrets"));
        self.leave_out(!command.is_empty(), "runtime.job.command is not used: the provider's binary is executed");
        self.leave_out(
            backoff_limit.is_some_and(|limit| limit != 0),
            "runtime.job.backoffLimit is overruled: attempts are retryPolicy's",
        );
        self.leave_out(
            ttl_seconds_after_finished.is_some(),
            "runtime.job.ttlSecondsAfterFinished is overruled: Jobs are kept until their end is stored",
        );
    }
}
