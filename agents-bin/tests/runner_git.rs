//! The runner's checkout as its callers meet it: the real binary, real git, repositories on this disk.

mod common;

use std::{
    fs,
    io::{BufRead, Write},
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
    fn run(&self, coordinates: Value, script: &str) -> (i32, Report, PathBuf) {
        self.run_with(coordinates, script, &[])
    }

    /// The same with these variables in the runner's environment.
    #[expect(clippy::needless_pass_by_value, reason = "reads well with `json!` in place")]
    fn run_with(&self, coordinates: Value, script: &str, variables: &[(&str, &str)]) -> (i32, Report, PathBuf) {
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
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        let report = fs::read(workspace.join(".agent/status.json")).unwrap();
        (status.code().unwrap(), serde_json::from_slice(&report).unwrap(), workspace)
    }

    #[track_caller]
    fn refused(&self, coordinates: Value) -> String {
        self.ended(coordinates, 69, "CheckoutFailed")
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads well with `json!` in place")]
    fn ended(&self, coordinates: Value, code: i32, reason: &str) -> String {
        let (ended, report, _) = self.run(coordinates.clone(), "exit 0");
        assert_eq!((ended, report.reason.as_deref()), (code, Some(reason)), "{coordinates} {report:?}");
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
        ("HEAD", "trunk", Some("trunk")),
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
    for path in ["nowhere", "sub/file", "link"] {
        let error = world.refused(json!({"url": world.url(), "path": path}));
        assert!(error.contains("git.path"), "{error}");
    }
    for path in ["../..", "/etc"] {
        let error = world.ended(json!({"url": world.url(), "path": path}), 64, "RunnerSpecInvalid");
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
        // Another attempt would be refused as well.
        let error = world.ended(coordinates, 64, "RunnerSpecInvalid");
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
fn a_head_that_names_nothing_is_said_with_what_is_there() {
    let world = World::new();
    let origin = world.origin();
    // A server that says what its HEAD names, and one that is too old to.
    for (protocol, names) in [("2", "`refs/heads/gone`"), ("0", "a branch")] {
        git(&origin, &["symbolic-ref", "HEAD", "refs/heads/gone"]);
        let variables =
            [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "protocol.version"), ("GIT_CONFIG_VALUE_0", protocol)];
        for coordinates in [json!({"url": world.url()}), json!({"url": world.url(), "ref": "HEAD"})] {
            let (code, report, workspace) = world.run_with(coordinates, "exit 0", &variables);
            assert_eq!((code, report.reason.as_deref()), (69, Some("CheckoutFailed")), "{report:?}");
            assert_eq!(report.started_at, None);
            let error = report.error.unwrap();
            assert!(error.contains(&format!("HEAD names {names}, which is not there")), "{error}");
            assert!(error.contains("`feature/x`, `trunk`") && error.contains("git.ref"), "{error}");
            assert!(!workspace.join(".agent/trace").exists());
        }
        // A branch that is named is checked out, whatever HEAD says.
        assert_eq!(world.run_with(json!({"url": world.url(), "ref": "trunk"}), "test -f sub/file", &variables).0, 0);
    }
    git(&origin, &["checkout", "--quiet", "--detach", "trunk"]);
    git(&origin, &["symbolic-ref", "HEAD", "refs/heads/gone"]);
    git(&origin, &["branch", "--quiet", "-D", "trunk", "feature/x"]);
    let error = world.refused(json!({"url": world.url()}));
    assert!(error.contains("no branch, but the tags `v1`"), "{error}");
}

/// Answers every request with these bytes, until the test ends.
fn answering(answer: String) -> std::net::SocketAddr {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = server.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in server.incoming() {
            let mut reader = std::io::BufReader::new(connection.unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    here
}

#[test]
fn a_redirect_is_refused_and_its_target_named() {
    let world = World::new();
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let there = elsewhere.local_addr().unwrap();
    for number in [301, 302, 307, 308] {
        let location = format!("http://user:hunter2@{there}/new.git/info/refs?service=git-upload-pack");
        let here = answering(format!(
            "HTTP/1.1 {number} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
        let error = world.refused(json!({"url": format!("http://{here}/old.git")}));
        assert!(error.contains(&format!("redirect to `http://{there}/new.git`,")), "{error}");
        assert!(error.contains("git.url") && !error.contains("hunter2"), "{error}");
    }
    assert_eq!(elsewhere.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it was followed");
}

/// git takes an answer without a whole line for a repository without a commit.
#[test]
fn a_page_is_no_empty_repository() {
    let world = World::new();
    let page = "<!doctype html><html><title>Sign in</title></html>";
    let pages = [
        ("text/html", ""),
        ("text/html", page),
        ("text/html", "<html>\n<title>Sign in</title>\n</html>\n"),
        ("application/json", r#"{"error":"not found"}"#),
        ("text/plain", page),
    ];
    for (kind, body) in pages {
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n");
        let url = format!("http://{}/team/project.git", answering(format!("{head}\r\n{body}")));
        for coordinates in [json!({"url": url}), json!({"url": url, "ref": "main"})] {
            let error = world.refused(coordinates);
            let is_told = error.contains("`git.url` is no git repository") || error.contains("info/refs not valid");
            assert!(is_told, "{body}: {error}");
        }
    }
}

#[test]
fn a_git_server_without_a_commit_is_a_place_to_start() {
    let world = World::new();
    let none = format!("{} capabilities^{{}}\0agent=git/1\n", "0".repeat(40));
    let body = format!("001e# service=git-upload-pack\n0000{:04x}{none}0000", none.len() + 4);
    let kind = "application/x-git-upload-pack-advertisement";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    let here = answering(format!("{head}Connection: close\r\n\r\n{body}"));
    let (code, report, _) = world.run(json!({"url": format!("http://{here}/empty.git")}), "exit 0");
    assert_eq!(code, 0, "{report:?}");
}

#[test]
fn a_server_that_wants_credentials_is_told_with_the_remedy() {
    let world = World::new();
    let here = answering(
        "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_owned(),
    );
    let error = world.refused(json!({"url": format!("http://{here}/private.git")}));
    assert!(error.contains("secretEnv") && error.contains("credential helper"), "{error}");
}

#[test]
fn what_a_hook_or_an_alias_hands_down_misleads_no_git() {
    let world = World::new();
    let other = world.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    git(&other, &["init", "--quiet"]);
    let place = other.join(".git").display().to_string();
    let index = format!("{place}/index");
    let trace = world.folder.path().join("trace").display().to_string();
    let variables = [
        ("GIT_DIR", place.as_str()),
        ("GIT_WORK_TREE", other.to_str().unwrap()),
        ("GIT_COMMON_DIR", &place),
        ("GIT_INDEX_FILE", &index),
        ("GIT_NAMESPACE", "elsewhere"),
        ("GIT_QUARANTINE_PATH", &place),
        ("GIT_SHALLOW_FILE", &index),
        ("GIT_CONFIG_PARAMETERS", "'core.bare'='true'"),
        ("GIT_PREFIX", "sub/"),
    ];
    let script =
        "test \"$(git rev-parse --show-toplevel)\" = \"$PWD\" && test -f sub/file && git commit -q --allow-empty -m 1";
    let (code, report, _) = world.run_with(json!({"url": world.url()}), script, &variables);
    assert_eq!(code, 0, "{report:?}");
    assert_eq!(report.vcs.unwrap().commits, Some(1));
    // As an Agent may set it for its provider: ours is not misled either, nor does it say more.
    let variables = [("GIT_TRACE", "1"), ("GIT_TRACE_CURL", &trace), ("GIT_LITERAL_PATHSPECS", "1")];
    let (code, report, _) = world.run_with(json!({"url": world.url(), "ref": "nowhere"}), "exit 0", &variables);
    assert_eq!(code, 69);
    assert_eq!(report.error.as_deref(), Some("the repository has no branch, tag or commit `nowhere`"));
}

#[test]
fn what_a_checkout_leaves_out_is_said() {
    let world = World::new();
    let origin = world.origin();
    fs::write(origin.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    fs::write(origin.join("real.bin"), "content").unwrap();
    fs::write(origin.join("big.bin"), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
        .unwrap();
    git(&origin, &["-c", "filter.lfs.clean=cat", "add", "."]);
    git(&origin, &["-c", "filter.lfs.clean=cat", "commit", "--quiet", "-m", "big"]);
    let (code, report, _) = world.run(json!({"url": world.url()}), "test -f big.bin");
    assert_eq!(code, 0, "{report:?}");
    let said = report.error.unwrap();
    assert!(said.contains("git-lfs") && said.contains("`big.bin`;"), "{said}");
    let shallow = world.folder.path().join("shallow");
    git(world.folder.path(), &["clone", "--quiet", "--depth=1", "--branch=feature/x", &world.url(), "shallow"]);
    let (code, report, _) = world.run(json!({"url": format!("file://{}", shallow.display())}), "true");
    assert_eq!(code, 0, "{report:?}");
    assert!(report.error.as_ref().is_some_and(|said| said.contains("shallow")), "{report:?}");
    // One that leaves nothing out says nothing.
    let (_, report, _) = world.run(json!({"url": world.url(), "ref": "v1"}), "true");
    assert_eq!(report.error, None);
}

#[test]
fn a_partial_clone_is_called_one() {
    let world = World::new();
    let folder = world.folder.path();
    git(&world.origin(), &["config", "uploadpack.allowFilter", "true"]);
    git(folder, &["clone", "--quiet", "--no-checkout", "--filter=blob:none", &world.url(), "partial"]);
    fs::rename(world.origin(), folder.join("elsewhere")).unwrap();
    let (code, report, _) = world.run(json!({"url": format!("file://{}", folder.join("partial").display())}), "true");
    assert_eq!((code, report.reason.as_deref()), (69, Some("CheckoutFailed")));
    let said = report.error.unwrap();
    assert!(
        said.starts_with("the repository lacks objects of its own commits") && said.contains("partial clone"),
        "{said}"
    );
}

#[test]
fn without_git_it_says_what_is_missing() {
    let world = World::new();
    let (code, report, _) = world.run_with(json!({"url": world.url()}), "true", &[("PATH", "/nowhere")]);
    assert_eq!((code, report.reason.as_deref()), (69, Some("CheckoutFailed")));
    assert!(report.error.as_ref().is_some_and(|said| said.contains("the program `git` is not in")), "{report:?}");
}

#[test]
fn a_repository_of_another_user_is_cloned() {
    let world = World::new();
    let mut open = vec![world.origin()];
    while let Some(path) = open.pop() {
        let given = std::os::unix::fs::lchown(&path, Some(12345), Some(12345)).is_ok();
        if common::lacks_root(given, "the right to give a repository to another user") {
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
    let report: Report = serde_json::from_slice(&fs::read(place.join("w/.agent/status.json")).unwrap()).unwrap();
    assert!(report.error.as_ref().is_some_and(|error| error.contains("while the repository was")), "{report:?}");
}
