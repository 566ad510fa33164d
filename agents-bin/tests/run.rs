//! `agents run` as a person meets it: the real binary, real processes, real files.

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use common::{AGENT, Place, Ran, provider, run, send, until};

#[test]
fn a_run_streams_leaves_its_folder_and_exits_0() {
    let place = Place::shell("echo hello; echo result > \"$AGENT_OUTPUTS_DIR/answer.txt\"", &[]);
    place.write("run.yaml", &run("one", "  outputs: [{name: answer, path: answer.txt}]\n"));
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.starts_with("hello\nNAME "), "{ran:?}");
    let row: Vec<_> = ran.out.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["one", "Succeeded", "Completed", "1"], "{ran:?}");
    assert!(row.contains(&"answer") && row.last() == Some(&"out/one"), "{ran:?}");
    let folder = place.out().join("one");
    assert_eq!(fs::read_to_string(folder.join("outputs/answer.txt")).unwrap(), "result\n");
    assert_eq!(fs::read_to_string(folder.join("log.txt")).unwrap(), "hello\n");
    assert!(folder.join("workspace").is_dir());
    let record = fs::read_to_string(folder.join("run.yaml")).unwrap();
    assert!(record.contains("phase: Succeeded") && record.contains("kind: AgentRun"), "{record}");
    // What was left is a manifest like any other.
    let again = Command::new(env!("CARGO_BIN_EXE_agents"))
        .args(["run", "-o", "name", "-f"])
        .arg(folder.join("run.yaml"))
        .arg("-f")
        .arg(place.manifests().join("agent.yaml"))
        .arg("-f")
        .arg(place.manifests().join("provider.yaml"))
        .arg("--out")
        .arg(place.out())
        .output()
        .unwrap();
    let again = Ran::of(again);
    assert_eq!((again.code, again.out.as_str()), (Some(0), "agentrun.agents.proompteng.ai/one\n"), "{again:?}");
    assert!(place.out().join("one-2/run.yaml").exists());
}

#[test]
fn no_output_takes_the_place_of_another() {
    let place = Place::shell("cd \"$AGENT_OUTPUTS_DIR\"; mkdir x y; for f in x/f y/f b-f; do echo $f > $f; done", &[]);
    let outputs = "[{name: a, path: x/f}, {name: b, path: y/f}, {name: c, path: b-f}]";
    place.write("run.yaml", &run("one", &format!("  outputs: {outputs}\n")));
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let folder = place.out().join("one/outputs");
    let mut found: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    found.sort();
    let texts: Vec<_> = found.iter().map(|file| fs::read_to_string(folder.join(file)).unwrap()).collect();
    assert_eq!(found, ["2-b-f", "b-f", "f"]);
    assert_eq!(texts, ["y/f\n", "b-f\n", "x/f\n"]);
}

#[test]
fn several_runs_are_told_apart_and_one_can_be_chosen() {
    let place = Place::shell("echo \"i am $AGENT_RUN_NAME\"", &["a", "b"]);
    place.write(
        "template.yaml",
        &run("t", "").replace("{name: t}", "{name: t, annotations: {agents.proompteng.ai/template: 'true'}}"),
    );
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("a | i am a\n") && ran.out.contains("b | i am b\n"), "{ran:?}");
    assert!(!ran.out.contains("\x1b["), "colours belong to terminals: {ran:?}");
    let ran = Ran::of(place.command().args(["--name", "b"]).output().unwrap());
    assert!(ran.out.contains("i am b\n") && !ran.out.contains("i am a"), "{ran:?}");
    let ran = Ran::of(place.command().args(["--name", "c"]).output().unwrap());
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("no AgentRun is named \"c\"; there are: a, b"), "{ran:?}");
}

#[test]
fn faults_of_manifests_name_their_place_and_nothing_is_run() {
    let place = Place::shell("touch \"$PLACE/started\"", &["good"]);
    place.write(
        "bad.yaml",
        &format!("---\n{}---\n{}", run("x", "  timeoutSeconds: soon\n"), run("z", "  agentref: {name: a}\n")),
    );
    place.write(
        "more.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: v1\nkind: Agent\nmetadata: {name: d}\n\
         ---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRnu\nmetadata: {name: e}\n",
    );
    place.write("broken.json", "{\"kind\": ");
    let ran = place.run();
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for wanted in [
        "bad.yaml:8:19: document 1: spec.timeoutSeconds is the text \"soon\"; an integer is wanted",
        "bad.yaml:16:3: document 2: spec.agentref is not a known field (did you mean agentRef?)",
        "more.yaml:10:1: document 3: kind \"AgentRnu\" is no kind of agents.proompteng.ai (did you mean AgentRun?)",
        "more.yaml:5:1: document 2: apiVersion is the text \"v1\" (Agent has the apiVersion agents.proompteng.ai/v1alpha1)",
        "broken.json",
        "hint: nothing was run",
    ] {
        assert!(ran.err.contains(wanted), "{wanted} is missing in:\n{}", ran.err);
    }
    assert!(!place.out().exists());
    assert!(!place.path().join("started").exists());
}

/// What `agents lint` takes is run as far as it can be; what nothing here acts on is named.
#[test]
fn objects_that_only_a_cluster_acts_on_are_left_out_by_name() {
    let place = Place::shell("echo ran", &["a"]);
    place.write(
        "others.yaml",
        "apiVersion: budgets.proompteng.ai/v1alpha1\nkind: Budget\nmetadata: {name: team}\nspec: {limits: {tokens: 5}}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n---\n\
         apiVersion: example.org/v2\nkind: Agent\nmetadata: {name: of-another}\nanything: 1\n",
    );
    let manifests = place.manifests();
    let lint = Command::new(env!("CARGO_BIN_EXE_agents")).args(["lint", "-f"]).arg(&manifests).output().unwrap();
    assert_eq!(lint.status.code(), Some(0), "{}", String::from_utf8_lossy(&lint.stdout));
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.starts_with("ran\n"), "{ran:?}");
    for left_out in ["Budget/team in ", "ConfigMap/settings in ", "Agent/of-another in "] {
        assert!(ran.err.contains(left_out), "{left_out}: {ran:?}");
    }
    assert!(ran.err.contains("nothing here acts on "), "{ran:?}");
    // One that is not as its kind must be is a fault here too.
    place.write(
        "bad.yaml",
        "apiVersion: budgets.proompteng.ai/v1alpha1\nkind: Budget\nmetadata: {name: b}\nspec: {limit: {}}\n",
    );
    let ran = place.run();
    assert!(ran.code == Some(2) && ran.err.contains("spec.limit is not a known field"), "{ran:?}");
}

#[test]
fn duplicates_odd_names_and_nothing_are_refused() {
    let place = Place::shell("true", &["a"]);
    place.write("second.yaml", &format!("{}---\n{}", run("a", ""), run("../b", "")));
    let ran = place.run();
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.err.contains("second.yaml:3:18: document 1: metadata.name \"a\" names a second AgentRun; the first is in"),
        "{ran:?}"
    );
    assert!(ran.err.contains("metadata.name \"../b\" is not a name"), "{ran:?}");
    let empty = Place::new();
    let ran = empty.run();
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("the manifests hold no AgentRun"), "{ran:?}");
    fs::remove_file(empty.manifests().join("agent.yaml")).unwrap();
    assert!(empty.run().err.contains("no manifest found"));
    let huge = format!("# {}\n", "x".repeat(1024 * 1024));
    empty.write("huge.yaml", &huge);
    let ran = empty.run();
    assert!(ran.err.contains("huge.yaml: is larger than 1048576 bytes"), "{ran:?}");
}

#[test]
fn a_run_of_an_absent_agent_ends_with_what_is_missing_after_the_others() {
    let place = Place::shell("echo worked", &["good"]);
    place.write("lost.yaml", &run("lost", "").replace("agentRef: {name: agent}", "agentRef: {name: nobody}"));
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("worked"), "{ran:?}");
    assert_eq!(items[0]["status"]["phase"], "Succeeded");
    assert_eq!(items[1]["status"]["phase"], "Pending");
    assert_eq!(items[1]["status"]["blockedBy"][0]["reason"], "AgentNotFound");
    assert_eq!(items[1]["status"]["blockedBy"][0]["object"], "Agent/nobody");
    let ran = place.run();
    assert!(
        ran.out.contains(
            "lost was not run: Agent/nobody does not exist in this namespace; to run it, create Agent/nobody"
        ),
        "{ran:?}"
    );
}

#[test]
fn an_undefined_template_name_starts_nothing() {
    let place = Place::shell("true", &["a"]);
    place.write(
        "provider.yaml",
        &provider("sh", &["-c", "touch \"$PLACE/started\"; echo {{ inputs.nothing_of_that_name }}"]),
    );
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(
        (&items[0]["status"]["phase"], &items[0]["status"]["reason"]),
        (&"Failed".into(), &"InvalidSpec".into())
    );
    let message = items[0]["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("argsTemplate[1]") && message.contains("line 1") && message.contains("nothing_of_that_name"),
        "{message}"
    );
    assert!(!place.path().join("started").exists());
}

#[test]
fn template_syntax_in_texts_and_values_arrives_byte_for_byte() {
    let text = "{{ secrets }} {% raw %} $HOME `id` é\u{1f600} \"q\" 'q' \\ {{ env.HOME }}";
    let place = Place::new();
    place.write(
        "provider.yaml",
        &provider(
            "sh",
            &[
                "-c",
                "printf %s \"$1\" > \"$PLACE/text\"; printf %s \"$2\" > \"$PLACE/value\"",
                "sh",
                "{{ implementation.text }}",
                "{{ inputs.value }}",
            ],
        ),
    );
    let manifest = serde_json::json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "metadata": {"name": "a"},
        "spec": {"agentRef": {"name": "agent"}, "implementation": {"inline": {"text": text}}, "parameters": {"value": text}},
    });
    place.write("run.json", &manifest.to_string());
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fs::read_to_string(place.path().join("text")).unwrap(), text);
    assert_eq!(fs::read_to_string(place.path().join("value")).unwrap(), text);
}

#[test]
fn the_exit_code_is_the_providers() {
    let place = Place::shell("echo oops >&2; exit 3", &["a"]);
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let status = &items[0]["status"];
    assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &"ProviderExited".into()));
    assert_eq!(status["attempts"][0]["exitCode"], 3);
    assert!(ran.err.contains("oops"));
}

#[test]
fn each_way_to_fail_has_its_reason() {
    let cases = [
        ("ProviderMissing", provider("/nowhere/codex", &[]), "", 1..=255),
        ("OutputMissing", provider("true", &[]), "  outputs: [{name: report, path: report.md}]\n", 1..=1),
        ("ProviderSignaled", provider("sh", &["-c", "kill -KILL $$"]), "", 137..=137),
        ("DeadlineExceeded", provider("sh", &["-c", "sleep 600"]), "  timeoutSeconds: 1\n", 1..=255),
    ];
    for (reason, provider, more, codes) in cases {
        let place = Place::new();
        place.write("provider.yaml", &provider);
        place.write("run.yaml", &run("a", more));
        let (ran, items) = place.json();
        let status = &items[0]["status"];
        assert_eq!((&status["phase"], &status["reason"]), (&"Failed".into(), &reason.into()), "{status}");
        assert!(codes.contains(&ran.code.unwrap()), "{reason}: {ran:?}");
        assert_eq!(place.processes(), Vec::<String>::new(), "{reason}");
    }
}

#[test]
fn failed_attempts_are_repeated_as_the_policy_says() {
    let place = Place::shell("echo x >> \"$PLACE/tries\"; test $(wc -l < \"$PLACE/tries\") -ge 3", &[]);
    place.write("run.yaml", &run("a", "  retryPolicy: {limit: 3, backoffSeconds: 0}\n"));
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(items[0]["status"]["attempt"], 3);
    assert_eq!(place.lines_of("tries"), 3);
}

#[test]
fn ctrl_c_cancels_and_leaves_no_process() {
    let place =
        Place::shell("trap 'echo bye; exit 9' TERM; touch \"$PLACE/started\"; while :; do sleep 0.1; done", &["a"]);
    let child = place.listening().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("started");
    send(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.out.contains("bye"), "the provider is asked first: {ran:?}");
    assert!(ran.out.contains("Cancelled"), "{ran:?}");
    assert_eq!(place.processes(), Vec::<String>::new());
}

#[test]
fn a_second_ctrl_c_ends_what_does_not_listen() {
    let place = Place::shell("trap '' TERM INT; touch \"$PLACE/started\"; while :; do sleep 0.1; done", &["a", "b"]);
    let child = place.listening().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("started");
    send(&child, Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(500));
    let before = Instant::now();
    send(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    // The grace is ten seconds.
    assert!(before.elapsed() < Duration::from_secs(8), "{ran:?}");
    assert_eq!(place.processes(), Vec::<String>::new());
}

#[test]
fn an_engine_killed_in_mid_run_is_continued_by_the_next() {
    let script = "echo x >> \"$PLACE/executions\"; echo first; touch \"$PLACE/started\"; \
                  while test ! -e \"$PLACE/go\"; do sleep 0.05; done; echo second; exit 3";
    let place = Place::shell(script, &["a"]);
    let mut first = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.wait_for("started");
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(!place.processes().is_empty(), "the execution outlives its engine");
    let second = place.command().args(["-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::write(place.path().join("go"), "").unwrap();
    let ran = Ran::of(second.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("is continued") && ran.err.contains("first\nsecond\n"), "{ran:?}");
    let items: Value = serde_json::from_str(&ran.out).unwrap();
    let status = &items["items"][0]["status"];
    assert_eq!((&status["reason"], &status["attempt"]), (&"ProviderExited".into(), &1.into()), "{status}");
    assert_eq!(place.lines_of("executions"), 1);
    assert_eq!(place.processes(), Vec::<String>::new());
    assert!(!place.out().join("a-2").exists());
}

#[test]
fn an_engine_killed_at_any_moment_of_the_start_leads_to_one_execution() {
    // Steps of a few milliseconds reach from before the claim to after the start.
    for millis in (0..60).step_by(4) {
        let place = Place::shell("echo x >> \"$PLACE/executions\"; sleep 0.2", &["a"]);
        let mut first = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        first.kill().unwrap();
        first.wait().unwrap();
        let (ran, items) = place.json();
        assert_eq!(ran.code, Some(0), "after {millis} ms: {ran:?}");
        assert_eq!(items[0]["status"]["phase"], "Succeeded");
        assert_eq!(place.lines_of("executions"), 1, "after {millis} ms");
    }
}

#[test]
fn an_unfinished_execution_of_another_spec_is_left_alone_and_told() {
    let place = Place::shell("touch \"$PLACE/started\"; while test ! -e \"$PLACE/go\"; do sleep 0.05; done", &["a"]);
    let mut first = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.wait_for("started");
    first.kill().unwrap();
    first.wait().unwrap();
    fs::write(place.path().join("go"), "").unwrap();
    let ran = Ran::of(place.command().args(["--param", "other=1"]).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("out/a holds an unfinished execution of another spec"), "{ran:?}");
    assert!(ran.out.contains("out/a-2"), "{ran:?}");
}

#[test]
fn ctrl_c_between_two_attempts_cancels() {
    let place = Place::shell("touch \"$PLACE/started\"; exit 1", &[]);
    place.write("run.yaml", &run("a", "  retryPolicy: {limit: 3, backoffSeconds: 3600}\n"));
    let child = place.listening().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let record = place.out().join("a/run.yaml");
    until("the wait", || fs::read_to_string(&record).is_ok_and(|text| text.contains("reason: Backoff")));
    send(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.out.contains("Cancelled"), "{ran:?}");
}

#[test]
fn two_engines_at_once_have_a_folder_each() {
    let place = Place::shell("touch \"$PLACE/started\"; while test ! -e \"$PLACE/go\"; do sleep 0.05; done", &["a"]);
    let first = place.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("started");
    let second = place.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("out/a-2/run.yaml");
    fs::write(place.path().join("go"), "").unwrap();
    for child in [first, second] {
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    }
}

#[test]
fn long_names_and_names_alike_in_their_first_200_characters_run() {
    let (a, b) = (format!("{}1", "a".repeat(252)), format!("{}2", "a".repeat(252)));
    let place =
        Place::shell("echo \"$AGENT_RUN_NAME\" > \"$PLACE/$(printf %s \"$AGENT_RUN_NAME\" | tail -c 1)\"", &[&a, &b]);
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let children: Vec<_> = items.iter().map(|item| item["status"]["runtimeRef"]["name"].as_str().unwrap()).collect();
    assert_ne!(children[0], children[1]);
    assert_eq!(fs::read_to_string(place.path().join("1")).unwrap().trim(), a);
    assert_eq!(fs::read_to_string(place.path().join("2")).unwrap().trim(), b);
    let folders = fs::read_dir(place.out()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 2);
}

#[test]
fn secrets_come_from_manifests_or_the_environment_and_are_not_left_on_disk() {
    let place = Place::new();
    let provider = serde_json::json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentProvider", "metadata": {"name": "shell"},
        "spec": {
            "binary": "sh",
            "argsTemplate": ["-c", "printf %s \"$A$B$C\" | cksum > \"$PLACE/sum\"; echo \"$A\""],
            "secretEnv": [
                {"name": "A", "secretName": "s", "key": "a"},
                {"name": "B", "secretName": "s", "key": "b"},
                {"name": "C", "secretName": "elsewhere", "key": "c"},
            ],
        },
    });
    place.write("provider.json", &provider.to_string());
    place.write("run.yaml", &run("a", ""));
    place.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: Y2FuYXJ5LWE=}\nstringData: {b: canary-b}\n",
    );
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let blocked = &items[0]["status"]["blockedBy"][0];
    let why = "the manifests have no Secret \"elsewhere\", and the environment no variable C";
    assert!(blocked["reason"] == "SecretMissing" && blocked["message"].as_str().unwrap().contains(why), "{ran:?}");
    assert!(!ran.err.contains("tried again"), "nothing is: {ran:?}");
    let ran = Ran::of(place.command().env("C", "canary-c").output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.err.contains("continued"), "{ran:?}");
    let sum = Command::new("sh").args(["-c", "printf canary-acanary-bcanary-c | cksum"]).output().unwrap();
    assert_eq!(fs::read(place.path().join("sum")).unwrap(), sum.stdout);
    assert!(!ran.out.contains("canary"), "{ran:?}");
    let found = Command::new("grep").args(["-rl", "canary"]).arg(place.out()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
}

#[test]
fn parameters_of_the_command_win_and_generated_names_work() {
    let place = Place::shell("echo \"got $AGENT_INPUT_COLOUR\"", &[]);
    place.write("run.yaml", &run("x", "  parameters: {colour: red}\n").replace("{name: x}", "{generateName: x-}"));
    let ran = Ran::of(place.command().args(["--param", "colour=a=b"]).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("got a=b\n"), "{ran:?}");
    assert!(ran.out.lines().last().unwrap().starts_with("x-"), "{ran:?}");
}

#[test]
fn manifests_may_come_through_standard_input() {
    use std::io::Write;
    let place = Place::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_agents"))
        .args(["run", "-f", "-", "--out"])
        .arg(place.out())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("{AGENT}---\n{}\n---\n{}", provider("echo", &["from a pipe"]), run("a", ""));
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("from a pipe\n"));
}

#[test]
fn a_repository_given_by_a_path_is_checked_out_and_its_commit_is_in_the_status() {
    let place = Place::shell("cat file; git log --oneline | wc -l", &[]);
    let repository = place.path().join("the repository");
    let git = |args: &[&str]| {
        let identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"];
        let done = Command::new("git").arg("-C").arg(&repository).args(identity).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    fs::create_dir_all(repository.join("below")).unwrap();
    git(&["init", "-q"]);
    fs::write(repository.join("file"), "content\n").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    place.write("run.yaml", &run("a", "  execution: {coordinates: {git: {url: '../the repository/below'}}}\n"));
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("content\n"), "{ran:?}");
    assert_eq!(items[0]["status"]["vcs"]["headCommit"].as_str().unwrap().len(), 40);
    let ran = Ran::of(place.command().args(["--param", "repository=./absent"]).output().unwrap());
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("names no repository") && ran.err.contains("cannot find"), "{ran:?}");
}

#[test]
fn the_quickstart_reports_on_a_repository() {
    let place = Place::new();
    let repository = place.path().join("repository");
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("LICENSE"), "\n  The Licence\n").unwrap();
    fs::write(repository.join("README.md"), "# It\n").unwrap();
    fs::write(repository.join("a b.rs"), "// TODO: all\nfn main() {}\n").unwrap();
    let commit = "git init -q && git add . && git -c user.name=n -c user.email=e@example.com commit -qm one";
    assert!(Command::new("sh").args(["-c", commit]).current_dir(&repository).status().unwrap().success());
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    let ran = Command::new(env!("CARGO_BIN_EXE_agents"))
        .args(["run", "-f"])
        .arg(examples)
        .arg("--param")
        .arg(format!("repository={}", repository.display()))
        .arg("--out")
        .arg(place.out())
        .output()
        .unwrap();
    let ran = Ran::of(ran);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let report = fs::read_to_string(place.out().join("quickstart/outputs/report.md")).unwrap();
    for wanted in [
        "# What is in this repository\n",
        "| Files | 3, 0.0 MiB |",
        "| README | `README.md`, 1 lines |",
        "| Licence | `LICENSE`: The Licence |",
        "| TODO, FIXME, XXX | 1 |",
        "| `.rs` | 1 | 2 |",
        "| `a b.rs` | 26 |",
    ] {
        assert!(report.contains(wanted), "{wanted} is missing in:\n{report}");
    }
}
