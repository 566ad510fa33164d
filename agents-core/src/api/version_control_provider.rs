//! VersionControlProvider: where repositories live, who may touch which, and how branches and commits are named.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, Scalar, SecretKeyRef, TemplateText},
    kind::{Column, Kind, Rule},
};

/// A host of repositories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VersionControlProvider;

impl Kind for VersionControlProvider {
    const KIND: &'static str = "VersionControlProvider";
    const PLURAL: &'static str = "versioncontrolproviders";
    const SINGULAR: &'static str = "versioncontrolprovider";
    const SHORT_NAMES: &'static [&'static str] = &["vcp"];
    const DESCRIPTION: &'static str =
        "A host of repositories: credentials, which repositories, names of branches and commits.";
    const COLUMNS: &'static [Column] = &[
        Column { name: "Phase", path: ".status.phase", kind: "string", wide: false },
        Column { name: "Provider", path: ".spec.provider", kind: "string", wide: false },
        Column { name: "Auth", path: ".spec.auth.method", kind: "string", wide: false },
        Column { name: "Ready", path: ".status.conditions[?(@.type==\"Ready\")].status", kind: "string", wide: false },
        Column { name: "Reason", path: ".status.reason", kind: "string", wide: false },
        Column { name: "Validated", path: ".status.lastValidatedAt", kind: "date", wide: true },
        Column { name: "Message", path: ".status.message", kind: "string", wide: true },
    ];
    const RULES: &'static [Rule] = &[
        Rule {
            field: ".spec.auth.method",
            expression: "!has(self.spec.auth) || !has(self.spec.auth.method) || self.spec.auth.method != 'app' \
                         || self.spec.provider == 'github'",
            message: "only GitHub has Apps; use token or ssh",
        },
        Rule {
            field: ".spec.cloneBaseUrl",
            expression: "self.spec.provider != 'generic' || has(self.spec.cloneBaseUrl) \
                         || (has(self.spec.cloneProtocol) && self.spec.cloneProtocol == 'ssh' && has(self.spec.sshHost))",
            message: "a generic provider needs cloneBaseUrl, or cloneProtocol ssh with sshHost",
        },
    ];
    const SELECTABLE: &'static [&'static str] = &[".status.phase"];
    const EXAMPLE: &'static str = include_str!("examples/versioncontrolprovider.yaml");
    type Spec = VersionControlProviderSpec;
    type Status = VersionControlProviderStatus;
}

/// Desired state of a VersionControlProvider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionControlProviderSpec {
    /// What the host is: `github`, `gitlab`, `bitbucket`, `gitea`, or `generic` for one that only speaks git.
    pub provider: VcsProvider,
    /// Base URL of the API; the provider's public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern(r"^https?://[^\s/]+"))]
    pub api_base_url: Option<String>,
    /// What stands before `owner/name` to clone over HTTPS; the provider's public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern(r"^[a-z][a-z+]*://[^\s/]+"))]
    pub clone_base_url: Option<String>,
    /// What stands before `owner/name` in a browser; the provider's public one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), pattern(r"^https?://[^\s/]+"))]
    pub web_base_url: Option<String>,
    /// How repositories are cloned: `https` or `ssh`; `https` when absent, `ssh` when `auth.method` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_protocol: Option<CloneProtocol>,
    /// Host to clone from over ssh; the host of `cloneBaseUrl` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(r"^[A-Za-z0-9][A-Za-z0-9.:-]*$"))]
    pub ssh_host: Option<String>,
    /// User to clone as over ssh; `git` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
    pub ssh_user: Option<String>,
    /// Credentials; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<VcsAuth>,
    /// Which repositories may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_policy: Option<RepositoryPolicy>,
    /// What runs may do with repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<VcsCapabilities>,
    /// Names of branches, commits and pull requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<VcsDefaults>,
}

/// What a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VcsProvider {
    /// GitHub, also an installation of one's own.
    Github,
    /// GitLab.
    Gitlab,
    /// Bitbucket.
    Bitbucket,
    /// Gitea.
    Gitea,
    /// Any git server.
    Generic,
}

/// How repositories are cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloneProtocol {
    /// Over HTTPS.
    Https,
    /// Over ssh.
    Ssh,
}

/// Credentials for a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.method) || self.method != 'token' || has(self.token)", "message": "method token needs token"},
    {"rule": "!has(self.method) || self.method != 'app' || has(self.app)", "message": "method app needs app"},
    {"rule": "!has(self.method) || self.method != 'ssh' || has(self.ssh)", "message": "method ssh needs ssh"},
]))]
pub struct VcsAuth {
    /// Which credentials are used: `token`, `app`, `ssh` or `none`; when absent the first of app, token and ssh that is
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<VcsAuthMethod>,
    /// User name that goes with the token; the one that the provider wants when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), pattern(r"^[^\s:@/]+$"))]
    pub username: Option<String>,
    /// A token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<VcsToken>,
    /// A GitHub App, which mints a token per run for one repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<VcsApp>,
    /// A key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<VcsSsh>,
}

/// Which credentials are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VcsAuthMethod {
    /// A token.
    Token,
    /// A GitHub App.
    App,
    /// A key.
    Ssh,
    /// Nothing.
    None,
}

/// A token for a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VcsToken {
    /// The Secret with the token; its key is `token` when none is given.
    pub secret_ref: SecretKeyRef,
    /// What the token is: `pat`, `fine_grained`, `api_token` or `access_token`; only for warnings about outdated ones.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<VcsTokenType>,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VcsTokenType {
    /// A personal access token.
    Pat,
    /// A personal access token for chosen repositories.
    FineGrained,
    /// A token of the API.
    ApiToken,
    /// A token of a project, group or repository.
    AccessToken,
}

/// A GitHub App.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "string(self.appId).matches('^[A-Za-z0-9.]+$')", "message": "appId is the App's number or client id"},
    {"rule": "string(self.installationId).matches('^[0-9]+$')", "message": "installationId is a number"},
]))]
pub struct VcsApp {
    /// The App's number, or its client id.
    pub app_id: Scalar,
    /// Number of the App's installation.
    pub installation_id: Scalar,
    /// The Secret with the App's private key as PEM; its key is `privateKey` when none is given.
    pub private_key_secret_ref: SecretKeyRef,
    /// How long a minted token is wanted to live, in seconds, 0 to 86400; GitHub gives 3600 at most, which is also the
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86_400))]
    pub token_ttl_seconds: Option<i64>,
}

/// A key for ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VcsSsh {
    /// The Secret with the private key; its key is `ssh-privatekey` when none is given.
    pub private_key_secret_ref: SecretKeyRef,
    /// The ConfigMap with the host's public keys; an unknown host is refused when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts_config_map_ref: Option<ConfigMapKeyRef>,
}

/// A key of a ConfigMap in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key inside the ConfigMap; `known_hosts` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Which repositories may be used. A repository that both lists fit is denied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryPolicy {
    /// Patterns of `owner/name` with `*`; every repository when absent, none when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 512)))]
    pub allow: Option<Vec<String>>,
    /// Patterns of `owner/name` with `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(length(min = 1, max = 512)))]
    pub deny: Vec<String>,
}

/// What runs may do with repositories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VcsCapabilities {
    /// Clone and fetch; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<bool>,
    /// Push; `true` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<bool>,
    /// Open pull requests; `true` when absent, for a provider that has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_requests: Option<bool>,
}

/// Names of branches, commits and pull requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VcsDefaults {
    /// Branch that work starts from when a run names none; the repository's own default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), pattern(r"^[^\s~^:?*\\\[-][^\s~^:?*\\\[]*$"))]
    pub base_branch: Option<String>,
    /// Template of the branch that work goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_template: Option<TemplateText>,
    /// Template of what is added when another live run uses the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_conflict_suffix_template: Option<TemplateText>,
    /// Name of the author of commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), pattern(r"^[^<>\n]+$"))]
    pub commit_author_name: Option<String>,
    /// Mail address of the author of commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 320), pattern(r"^[^<>\s]+$"))]
    pub commit_author_email: Option<String>,
    /// Pull requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestDefaults>,
}

/// How pull requests are opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullRequestDefaults {
    /// Whether one is opened; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Whether it is opened as a draft; `false` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<bool>,
    /// Template of its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title_template: Option<TemplateText>,
    /// Template of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_template: Option<TemplateText>,
}

/// State of a VersionControlProvider in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VersionControlProviderPhase {
    /// Not looked at yet, or waiting for its Secret.
    Pending,
    /// The credentials work.
    Ready,
    /// The credentials do not work, or the host does not answer; tried again with growing pauses.
    Error,
    /// The spec can never work.
    Invalid,
}

/// Observed state of a VersionControlProvider.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionControlProviderStatus {
    /// Generation of the spec this status was judged on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VersionControlProviderPhase>,
    /// Why it is in this phase, in one CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub reason: Option<String>,
    /// Why it is in this phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
    /// When this status was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When the credentials were tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_validated_at: Option<Timestamp>,
    /// Tries that failed since the last one that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// Current conditions, one per type: Ready, InvalidSpec, Warning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
