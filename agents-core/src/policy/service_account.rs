//! Which service accounts the pods of runs may have.
//!
//! A pod gets no token of its account, but an account decides more than tokens: which Secrets pull its images, what
//! admission policies let it do, which cloud role it is given. So whoever may write a run may not choose among all
//! accounts of the namespace.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{Denial, Subject, Verdict};
use crate::status::Reason;

/// Longest name of a service account, in bytes.
const MAX_NAME: usize = 253;

/// Service accounts that are allowed; none unless said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceAccounts {
    /// In every namespace.
    everywhere: BTreeSet<String>,
    /// In one, as (namespace, name).
    in_one: BTreeSet<(String, String)>,
}

/// An entry that allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{entry:?} names no service account: give NAME, or NAMESPACE/NAME, in lower case and without patterns")]
pub struct AccountError {
    /// The entry.
    pub entry: String,
}

impl ServiceAccounts {
    /// Allows an account, written as `NAME` or `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// No account can have that name.
    pub fn allow(&mut self, entry: &str) -> Result<(), AccountError> {
        let unnamed = || AccountError { entry: entry.to_owned() };
        match entry.split_once('/') {
            None if is_subdomain(entry) => {
                self.everywhere.insert(entry.to_owned());
            }
            Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
                self.in_one.insert((namespace.to_owned(), name.to_owned()));
            }
            _ => return Err(unnamed()),
        }
        Ok(())
    }

    /// Whether pods of the namespace may have the account. Names are compared byte for byte.
    fn allows(&self, namespace: &str, name: &str) -> bool {
        let Self { everywhere, in_one } = self;
        everywhere.contains(name) || in_one.iter().any(|(of, allowed)| of == namespace && allowed == name)
    }

    pub(super) fn judge(&self, subject: Subject<'_>) -> Verdict {
        let Subject { namespace, pod, default_account, service_account_at } = subject;
        let name = &pod.service_account;
        if name == default_account || self.allows(namespace, name) {
            return Verdict::Allow;
        }
        let at = service_account_at.unwrap_or("the pod");
        Verdict::Deny(Denial {
            reason: Reason::ServiceAccountNotAllowed,
            message: format!(
                "{at} names the service account {name:?}, which runs in namespace {namespace} may not have"
            ),
            unblocked_by: format!(
                "add {name} to --allowed-service-accounts of the controller (runs.allowedServiceAccounts of the chart), or \
                 leave the account out for the default one"
            ),
        })
    }
}

/// Whether it can be the name of a service account: labels with dots between.
fn is_subdomain(name: &str) -> bool {
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        plan::pod::{ContainerPlan, NOBODY, PodPlan},
        policy::{Rules, judge},
    };

    fn pod(account: &str) -> PodPlan {
        PodPlan {
            service_account: account.to_owned(),
            init_containers: vec![],
            container: ContainerPlan {
                name: String::new(),
                image: String::new(),
                command: vec![],
                env: vec![],
                requests: BTreeMap::new(),
                limits: BTreeMap::new(),
                mounts: vec![],
                read_only_root: false,
            },
            volumes: vec![],
            run_as: NOBODY,
            grace_seconds: 0,
        }
    }

    fn allows(entries: &[&str], namespace: &str, account: &str) -> bool {
        let mut rules = Rules::default();
        for entry in entries {
            rules.service_accounts.allow(entry).unwrap();
        }
        let pod = pod(account);
        let subject = Subject { namespace, pod: &pod, default_account: "agents-run", service_account_at: None };
        judge(&rules, subject) == Verdict::Allow
    }

    #[test]
    fn only_what_is_listed_is_allowed_byte_for_byte() {
        let entries = ["builders", "team-a/deployer"];
        for (namespace, account) in [("team-a", "agents-run"), ("team-b", "builders"), ("team-a", "deployer")] {
            assert!(allows(&entries, namespace, account), "{namespace}/{account}");
        }
        for account in [
            "",
            "default",
            "agents",
            "agents-controller",
            "agents-run.",
            "agents-run ",
            " agents-run",
            "agents-run\n",
            "agents-run\0",
            "Agents-Run",
            "agents\u{2010}run",
            "\u{0430}gents-run",
            "agents-run\u{200b}",
            "agents-ru",
            "agents-runs",
            "team-b/builders",
            "team-a/deployer",
            "system:serviceaccount:team-b:agents-run",
            "*",
            "deployer",
        ] {
            assert!(!allows(&entries, "team-b", account), "{account:?}");
        }
        assert!(!allows(&[], "team-a", "default"));
    }

    #[test]
    fn an_entry_that_no_account_can_have_is_refused() {
        for entry in [
            "", "*", "team-*", "Agents", "a b", "a.", ".a", "a..b", "-a", "a-", "a/b/c", "/a", "a/", "a.b/c", "é",
            "a\n",
        ] {
            assert!(ServiceAccounts::default().allow(entry).is_err(), "{entry:?}");
        }
        assert!(ServiceAccounts::default().allow(&"a".repeat(254)).is_err());
    }

    #[test]
    fn a_denial_names_the_account_the_field_and_the_way_out() {
        let pod = pod("admin");
        let service_account_at = Some("spec.runtime.job.serviceAccount");
        let subject = Subject { namespace: "ns", pod: &pod, default_account: "agents-run", service_account_at };
        let Verdict::Deny(Denial { reason, message, unblocked_by }) = judge(&Rules::default(), subject) else {
            panic!("allowed")
        };
        assert_eq!(reason, Reason::ServiceAccountNotAllowed);
        assert!(message.contains("spec.runtime.job.serviceAccount") && message.contains("\"admin\""), "{message}");
        assert!(unblocked_by.contains("--allowed-service-accounts"), "{unblocked_by}");
    }

    proptest! {
        #[test]
        fn nothing_is_allowed_that_no_entry_names(
            entries in prop::collection::vec("([a-c]/|)[a-c]{1,2}", 0..5), namespace in "[a-c]", account in "[a-c]{0,3}|[a-c]/[a-c]",
        ) {
            let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
            let full = format!("{namespace}/{account}");
            let named = !account.contains('/') && entries.iter().any(|entry| *entry == account || *entry == full);
            prop_assert_eq!(allows(&entries, &namespace, &account), named);
        }
    }
}
