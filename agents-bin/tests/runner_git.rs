//! The runner's checkout as its callers meet it: the real binary, real git, repositories on this disk.

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agents_core::{api::agent_run::VcsStatus, report::Report};
use serde_json::{Value, json};

/// Runs git with an identity of its own; returns what it printed.
fn git(place: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(place)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "safe.directory=*", "-c", "init.defaultBranch=trunk"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

struct World {
    folder: tempfile::TempDir,
}

impl World {
    /// A repository with a commit on `trunk`, a tag `v1` on it, a branch `feature/x` and a commit no branch reaches.
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        let origin = world.origin();
        fs::create_dir_all(origin.join("sub")).unwrap();
        git(&origin, &["init", "--quiet"]);
        fs::write(origin.join("sub/file"), "trunk").unwrap();
        symlink("/etc", origin.join("link")).unwrap();
        git(&origin, &["add", "."]);
        git(&origin, &["commit", "--quiet", "-m", "first"]);
        git(&origin, &["tag", "v1"]);
        git(&origin, &["checkout", "--quiet", "-b", "feature/x"]);
        fs::write(origin.join("sub/file"), "feature").unwrap();
        git(&origin, &["commit", "--quiet", "-am", "second"]);
        git(&origin, &["checkout", "--quiet", "--detach"]);
        git(&origin, &["commit", "--quiet", "--allow-empty", "-m", "hidden"]);
        git(&origin, &["update-ref", "refs/pull/1/head", "HEAD"]);
        git(&origin, &["checkout", "--quiet", "trunk"]);
        world
    }

    fn origin(&self) -> PathBuf {
        self.folder.path().join("origin")
    }

    fn url(&self) -> String {
        format!("file://{}", self.origin().display())
    }

    fn commit(&self, expression: &str) -> String {
        git(&self.origin(), &["rev-parse", &format!("{expression}^{{commit}}")])
    }

    /// Runs `script` in a fresh workspace with these coordinates.
    #[expect(clippy::needless_pass_by_value, reason = "reads well with `json!` in place")]
    fn run(&self, coordinates: Value, script: &str) -> (i32, Report, PathBuf) {
        let place = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        let workspace = place.join("workspace");
        let spec = json!({
            "provider": "p",
            "providerSpec": {"binary": "/bin/sh", "argsTemplate": ["-c", script]},
            "git": coordinates,
            "limits": {"timeoutSeconds": 50, "graceSeconds": 1},
            "roots": {"workspace": workspace, "home": place.join("home")},
        });
        let file = place.join("spec.json");
        fs::write(&file, spec.to_string()).unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_agent-runner"))
            .arg(&file)
            .env_remove("AGENT_RUNNER_ACTIVE")
            .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@a")])
            .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@a")])
            // As a git hook would set it: no git of ours may follow it.
            .env("GIT_DIR", self.origin().join(".git"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        let report = fs::read(workspace.join(".agent/status.json")).unwrap();
        (status.code().unwrap(), serde_json::from_slice(&report).unwrap(), workspace)
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads well with `json!` in place")]
    fn refused(&self, coordinates: Value) -> String {
        let (code, report, _) = self.run(coordinates.clone(), "exit 0");
        assert_eq!((code, report.reason.as_deref()), (69, Some("CheckoutFailed")), "{coordinates} {report:?}");
        assert_eq!(report.started_at, None);
        report.error.unwrap()
    }
}

#[test]
fn the_agents_commits_are_reported() {
    let world = World::new();
    let script = "set -e; test \"$(cat sub/file)\" = trunk; test -z \"$GIT_DIR\"
                  git checkout -q -b work; echo 1 > new; git add new; git commit -qm one; echo 2 > new; git commit -qam two";
    let (code, report, workspace) = world.run(json!({"url": world.url()}), script);
    assert_eq!(code, 0, "{report:?}");
    let repository = workspace.join("repository");
    let expected = VcsStatus {
        repository: Some(world.url()),
        branch: Some("work".into()),
        base_commit: Some(world.commit("trunk")),
        head_commit: Some(git(&repository, &["rev-parse", "HEAD"])),
        commits: Some(2),
        ..VcsStatus::default()
    };
    assert_eq!(report.vcs, Some(expected));
    assert!(!workspace.join(".agent/gitconfig").exists());
    assert_eq!(git(&repository, &["config", "remote.origin.url"]), world.url());
}

#[test]
fn branch_tag_commit_and_ref_are_found() {
    let world = World::new();
    let hidden = world.commit("refs/pull/1/head");
    let short = world.commit("trunk")[..10].to_owned();
    for (reference, commit, branch) in [
        ("trunk", "trunk", Some("trunk")),
        ("feature/x", "feature/x", Some("feature/x")),
        ("refs/heads/feature/x", "feature/x", Some("feature/x")),
        ("v1", "v1", None),
        ("refs/tags/v1", "v1", None),
        (short.as_str(), "trunk", None),
        (hidden.as_str(), "refs/pull/1/head", None),
        ("refs/pull/1/head", "refs/pull/1/head", None),
    ] {
        let (code, report, _) = world
            .run(json!({"url": world.url(), "ref": reference}), "git status --porcelain | grep . && exit 9; exit 0");
        let vcs = report.vcs.clone().unwrap_or_else(|| panic!("{reference}: {report:?}"));
        assert_eq!(code, 0, "{reference}: {report:?}");
        assert_eq!(vcs.base_commit, Some(world.commit(commit)), "{reference}");
        assert_eq!((vcs.branch.as_deref(), vcs.commits), (branch, Some(0)), "{reference}");
    }
}

#[test]
fn the_provider_starts_in_the_folder_that_was_asked_for() {
    let world = World::new();
    let (code, report, _) = world.run(json!({"url": world.url(), "path": "./sub/"}), "test -f file");
    assert_eq!(code, 0, "{report:?}");
    for path in ["nowhere", "sub/file", "link", "../..", "/etc"] {
        let error = world.refused(json!({"url": world.url(), "path": path}));
        assert!(error.contains("git.path"), "{error}");
    }
}

#[test]
fn what_cannot_be_checked_out_is_said() {
    let world = World::new();
    let error = world.refused(json!({"url": world.url(), "ref": "nowhere"}));
    assert!(error.contains("no branch, tag or commit `nowhere`"), "{error}");
    let error = world.refused(json!({"url": format!("file://{}/absent", world.folder.path().display())}));
    assert!(error.contains("git clone: fatal:") && error.contains("absent"), "{error}");
    for (coordinates, field) in [
        (json!({"url": "ext::sh -c id"}), "git.url"),
        (json!({"url": "https://user:hunter2@localhost/x"}), "git.url"),
        (json!({"url": "ssh://-oProxyCommand=id/x"}), "git.url"),
        (json!({"url": "--upload-pack=id"}), "git.url"),
        (json!({"url": world.url(), "ref": "--upload-pack=id"}), "git.ref"),
        (json!({"url": world.url(), "ref": "a..b"}), "git.ref"),
    ] {
        let error = world.refused(coordinates);
        assert!(error.contains(field) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_empty_repository_is_a_place_to_start() {
    let world = World::new();
    let empty = world.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "--quiet", "--bare"]);
    let url = format!("file://{}", empty.display());
    let (code, report, _) = world.run(json!({"url": url}), "git commit -q --allow-empty -m first");
    assert_eq!(code, 0, "{report:?}");
    let vcs = report.vcs.unwrap();
    assert_eq!((vcs.base_commit, vcs.commits), (None, Some(1)));
}

#[test]
fn a_repository_of_another_user_is_cloned() {
    let world = World::new();
    let mut open = vec![world.origin()];
    while let Some(path) = open.pop() {
        if std::os::unix::fs::lchown(&path, Some(12345), Some(12345)).is_err() {
            eprintln!("skipped: only root can give a repository to another user");
            return;
        }
        if path.is_dir() && !path.is_symlink() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let (code, report, _) = world.run(json!({"url": world.url()}), "test -f sub/file && git log -1");
    assert_eq!(code, 0, "{report:?}");
    chown(world.origin(), Some(0), Some(0)).unwrap();
}

#[test]
fn neither_the_repository_nor_the_provider_makes_our_git_run_programs() {
    let world = World::new();
    let proof = world.folder.path().join("proof");
    let program = world.folder.path().join("program.sh");
    fs::write(&program, format!("#!/bin/sh\necho ran >> {}\n", proof.display())).unwrap();
    let program = program.display();
    let script = format!(
        "chmod +x {program}; git config core.fsmonitor {program}; git config core.pager {program}
         git config core.sshCommand {program}; git config remote.origin.promisor true
         git config remote.origin.partialclonefilter blob:none; git config diff.external {program}
         for hook in post-checkout reference-transaction pre-auto-gc; do mkdir -p .git/hooks; cp {program} .git/hooks/$hook; done
         git config --global core.fsmonitor {program} || true; rm -f {proof}",
        proof = proof.display()
    );
    let (code, report, _) = world.run(json!({"url": world.url()}), &format!("HOME=$PWD; {script}"));
    assert_eq!(code, 0, "{report:?}");
    assert_eq!(report.vcs.unwrap().commits, Some(0));
    assert!(!proof.exists());
}

#[test]
fn a_checkout_that_hangs_ends_with_the_deadline() {
    let world = World::new();
    // Accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("git://{}/x", silent.local_addr().unwrap());
    let place = world.folder.path().join("hang");
    let spec = json!({
        "provider": "p", "providerSpec": {"binary": "/bin/true"}, "git": {"url": url},
        "limits": {"timeoutSeconds": 1, "graceSeconds": 1},
        "roots": {"workspace": place.join("w"), "home": place.join("h")},
    });
    let status = Command::new(env!("CARGO_BIN_EXE_agent-runner"))
        .env("AGENT_RUNNER_SPEC", spec.to_string())
        .env_remove("AGENT_RUNNER_SPEC_PATH")
        .env_remove("AGENT_RUNNER_ACTIVE")
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(124));
}
