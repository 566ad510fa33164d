//! VersionControlProvider.

use super::{Check, Faults, values};
use crate::api::{
    VersionControlProvider, VersionControlProviderSpec,
    version_control_provider::{PullRequestDefaults, VcsDefaults},
};

impl Check for VersionControlProvider {
    fn check(spec: &VersionControlProviderSpec, faults: &mut Faults) {
        let VersionControlProviderSpec {
            provider: _,
            api_base_url: _,
            clone_base_url: _,
            web_base_url: _,
            clone_protocol: _,
            ssh_host: _,
            ssh_user: _,
            auth: _,
            repository_policy: _,
            capabilities: _,
            defaults,
        } = spec;
        let Some(VcsDefaults {
            base_branch,
            branch_template,
            branch_conflict_suffix_template,
            commit_author_name: _,
            commit_author_email: _,
            pull_request,
        }) = defaults
        else {
            return;
        };
        if let Some(branch) = base_branch
            && !is_branch(branch)
        {
            faults.add("spec.defaults.baseBranch", format!("{branch:?} is no name that git allows for a branch"));
        }
        let mut templates = vec![
            ("branchTemplate", branch_template),
            ("branchConflictSuffixTemplate", branch_conflict_suffix_template),
        ];
        if let Some(PullRequestDefaults { enabled: _, draft: _, title_template, body_template }) = pull_request {
            templates.push(("pullRequest.titleTemplate", title_template));
            templates.push(("pullRequest.bodyTemplate", body_template));
        }
        for (field, template) in templates {
            if let Some(template) = template {
                values::template(&format!("spec.defaults.{field}"), template, faults);
            }
        }
    }
}

/// What git says of names beyond the characters that the schema refuses.
fn is_branch(name: &str) -> bool {
    name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && !name.contains(|c: char| c.is_control())
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.strip_suffix(".lock").is_none())
}
