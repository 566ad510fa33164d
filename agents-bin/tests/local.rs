//! `agents run` where the machine is short of something, and what it leaves there.

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use common::{Place, Ran, can_unshare, lacks_root, listening, provider, run, send, until};

const AGENTS: &str = env!("CARGO_BIN_EXE_agents");

/// `agents run` in a mount namespace whose `--out` is a disk of 1 MiB, under a shell that does `then` first.
fn on_a_tiny_disk(place: &Place, then: &str) -> Command {
    let out = place.out();
    fs::create_dir_all(&out).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=1m none {out} && {then}exec {AGENTS} run -f {manifests} --out {out}",
        out = out.display(),
        manifests = place.manifests().display()
    );
    let mut command = listening("unshare");
    command.args(["--mount", "sh", "-c", &script]).current_dir(place.path()).env("PLACE", place.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Fills the disk when told to, and ends when told to.
const FILLS: &str = "touch \"$PLACE/started\"; head -c 4000000 /dev/zero > filler; touch \"$PLACE/full\"; \
                     while test ! -e \"$PLACE/go\"; do sleep 0.05; done";

/// Keeps a disk full from the moment on that the provider has filled it.
const STAYS_FULL: &str = "(while test ! -e \"$PLACE/full\"; do sleep 0.02; done; \
                          while test ! -e \"$PLACE/enough\" -a -e \"$PLACE\"; do cat /dev/zero >> out/.filler; sleep 0.01; done) > /dev/null 2>&1 & ";

#[test]
fn what_cannot_be_stored_is_told_at_once_and_given_up_after_a_while() {
    if lacks_root(can_unshare(&["--mount"]), "a mount namespace of our own") {
        return;
    }
    let place = Place::shell(FILLS, &["a"]);
    let begin = Instant::now();
    let child = on_a_tiny_disk(&place, STAYS_FULL).spawn().unwrap();
    place.wait_for("full");
    thread::sleep(Duration::from_millis(200));
    fs::write(place.path().join("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("a: its status cannot be stored: No space left on device"), "{ran:?}");
    assert!(ran.out.contains("a was given up: its status cannot be stored: No space left on device"), "{ran:?}");
    assert!(ran.out.contains("may not stand in out/a/run.yaml"), "{ran:?}");
    assert!(begin.elapsed() < Duration::from_secs(50), "{ran:?}");
    fs::write(place.path().join("enough"), "").unwrap();
    until("no process", || place.processes().is_empty());
}

#[test]
fn a_record_that_cannot_be_written_is_like_a_full_disk() {
    // A folder in the record's way.
    let place = Place::shell("until mkdir \"$PLACE/out/a/.run.yaml\" 2> /dev/null; do sleep 0.01; done", &["a"]);
    let (ran, items) = place.json();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(items[0]["status"]["phase"], "Succeeded", "what is known is shown: {ran:?}");
    assert!(ran.err.contains("a: its status cannot be stored: Is a directory"), "{ran:?}");
    assert!(ran.err.contains("a was given up"), "{ran:?}");
}

#[test]
fn a_run_whose_folder_was_deleted_is_lost_and_not_waited_for() {
    let place = Place::shell("rm -rf \"$PLACE/out/a\"; touch \"$PLACE/deleted\"", &["a"]);
    let ran = place.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("Lost"), "{ran:?}");
}

#[test]
fn on_a_full_disk_the_second_signal_ends_everything() {
    if lacks_root(can_unshare(&["--mount"]), "a mount namespace of our own") {
        return;
    }
    let script = format!("trap '' TERM; {FILLS}");
    let place = Place::shell(&script, &["a"]);
    let child = on_a_tiny_disk(&place, "").spawn().unwrap();
    place.wait_for("full");
    send(&child, Signal::SIGINT);
    thread::sleep(Duration::from_millis(500));
    let before = Instant::now();
    send(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(before.elapsed() < Duration::from_secs(15), "{ran:?}");
    assert!(ran.code == Some(130) || ran.code == Some(1), "{ran:?}");
    until("no process", || place.processes().is_empty());
}

#[test]
fn a_disk_that_has_room_again_in_time_costs_nothing() {
    if lacks_root(can_unshare(&["--mount"]), "a mount namespace of our own") {
        return;
    }
    let place = Place::shell(&format!("{FILLS}; (sleep 3; rm filler) & exit 0"), &["a"]);
    // The provider's children are ended with it, so somebody outside makes room.
    let script = "(while test ! -e \"$PLACE/room\"; do sleep 0.1; done; find out -name filler -delete) & ";
    let child = on_a_tiny_disk(&place, script).spawn().unwrap();
    place.wait_for("full");
    fs::write(place.path().join("go"), "").unwrap();
    thread::sleep(Duration::from_secs(1));
    fs::write(place.path().join("room"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("Succeeded"), "{ran:?}");
}

#[test]
fn many_runs_need_few_descriptors() {
    let names: Vec<String> = (0..100).map(|n| format!("r{n}")).collect();
    let place = Place::shell("exit 0", &names.iter().map(String::as_str).collect::<Vec<_>>());
    let ran = Ran::of(limited(&place, "ulimit -n 60").output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.out.matches("Succeeded").count(), 100, "{ran:?}");
}

/// `agents run` under limits of a shell.
fn limited(place: &Place, limits: &str) -> Command {
    let mut command = listening("sh");
    command
        .args(["-c", &format!("{limits}; exec \"$@\""), "sh", AGENTS, "run", "-f"])
        .arg(place.manifests())
        .arg("--out")
        .arg(place.out())
        .current_dir(place.path())
        .env("PLACE", place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Lets a process open no file any more, or as many as is usual.
fn limit_files(child: &std::process::Child, most: u32) {
    let pid = child.id().to_string();
    let limit = format!("--nofile={most}:4096");
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

/// A run that waits to be tried a second time, under a command that can open no file from then on.
fn short_of_files(place: &Place) -> std::process::Child {
    place.write("run.yaml", &run("a", "  retryPolicy: {limit: 1, backoffSeconds: 2}\n"));
    let said = fs::File::create(place.path().join("said")).unwrap();
    let child = limited(place, "ulimit -n 4096").stderr(said).spawn().unwrap();
    let record = place.out().join("a/run.yaml");
    until("the wait", || fs::read_to_string(&record).is_ok_and(|text| text.contains("reason: Backoff")));
    limit_files(&child, 4);
    let said = || fs::read_to_string(place.path().join("said")).unwrap();
    until("a word", || said().contains("cannot be looked at: "));
    assert!(said().contains("too many open files"), "{}", said());
    child
}

#[test]
fn what_is_lacking_is_named_and_tried_again_until_it_is_there() {
    let place = Place::shell("echo x >> \"$PLACE/tries\"; test $(wc -l < \"$PLACE/tries\") -ge 2", &[]);
    let child = short_of_files(&place);
    limit_files(&child, 4096);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.code, place.lines_of("tries")), (Some(0), 2), "{ran:?}");
}

#[test]
fn signals_end_a_command_that_lacks_everything() {
    let place = Place::shell("exit 1", &[]);
    let mut child = short_of_files(&place);
    let before = Instant::now();
    send(&child, Signal::SIGTERM);
    thread::sleep(Duration::from_millis(300));
    send(&child, Signal::SIGTERM);
    until("the end", || child.try_wait().unwrap().is_some());
    assert!(before.elapsed() < Duration::from_secs(15));
}

#[test]
fn everything_we_make_is_for_its_owner_alone() {
    let script = "umask 022; echo made > \"$AGENT_OUTPUTS_DIR/open\"; chmod 644 \"$AGENT_OUTPUTS_DIR/open\"; \
                  touch \"$AGENT_OUTPUTS_DIR/tight\"; chmod 600 \"$AGENT_OUTPUTS_DIR/tight\"; echo hello";
    let place = Place::shell(script, &[]);
    place.write("run.yaml", &run("a", "  outputs: [{name: open}, {name: tight}]\n"));
    let ran = Ran::of(limited(&place, "umask 0").output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut seen = 0;
    let mut open = vec![place.out()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        // What is below an attempt is behind its folder, and the provider's.
        if found.is_symlink() || path.ends_with("outputs/open") {
            continue;
        }
        seen += 1;
        assert_eq!(found.permissions().mode() & 0o077, 0, "{} is {:o}", path.display(), found.permissions().mode());
        let is_inside_an_attempt = path.parent().is_some_and(|parent| parent.ends_with("attempts"));
        if found.is_dir() && !is_inside_an_attempt {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen >= 9, "{seen}");
    let outputs = place.out().join("a/outputs");
    assert_eq!(fs::metadata(outputs.join("open")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(outputs.join("tight")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_long_line_is_one_line() {
    let place = Place::new();
    let script = "printf '{\"text\":\"'; head -c 400000 /dev/zero | tr '\\0' x; printf '\"}\\n'; \
                  i=0; while [ $i -lt 40 ]; do printf '%s' '\u{20ac}\u{20ac}\u{20ac}'; i=$((i+1)); sleep 0.01; done; echo";
    place.write("provider.yaml", &provider("sh", &["-c", script]));
    place.write("run.yaml", &run("a", ""));
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let mut lines = ran.out.lines();
    let json: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(json["text"].as_str().unwrap().len(), 400_000);
    assert_eq!(lines.next().unwrap(), "\u{20ac}".repeat(120));
}

#[test]
fn a_line_without_measure_is_cut_between_characters_and_marked() {
    let place = Place::shell("head -c 1500000 /dev/zero | tr '\\0' x | sed 's/x/\u{20ac}/g'; echo; echo end", &["a"]);
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.out.contains('\u{fffd}'), "a character was cut");
    let lines: Vec<_> = ran.out.lines().take_while(|line| *line != "end").collect();
    assert!(lines.len() >= 5 && lines.iter().all(|line| line.len() <= 1_048_576 + 40), "{}", lines.len());
    let whole: String = lines.iter().map(|line| line.trim_end_matches(" [the line goes on]")).collect();
    assert!(whole == "\u{20ac}".repeat(1_500_000), "{} characters", whole.chars().count());
    let log = fs::read_to_string(place.out().join("a/log.txt")).unwrap();
    assert!(log.ends_with("\nend\n"));
}

#[test]
fn a_signal_that_the_shell_ignored_stays_ignored_and_term_works() {
    let place =
        Place::shell("touch \"$PLACE/started\"; while test ! -e \"$PLACE/go\"; do sleep 0.05; done; echo done", &["a"]);
    let child = limited(&place, "trap '' INT HUP").spawn().unwrap();
    place.wait_for("started");
    for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGINT] {
        send(&child, signal);
    }
    thread::sleep(Duration::from_millis(300));
    fs::write(place.path().join("go"), "").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(ran.code == Some(0) && ran.out.contains("done"), "{ran:?}");
    fs::remove_file(place.path().join("go")).unwrap();
    fs::remove_file(place.path().join("started")).unwrap();
    let child = limited(&place, "trap '' INT HUP").spawn().unwrap();
    place.wait_for("started");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn a_missing_interpreter_is_named() {
    for (first_line, words) in
        [("#!/nowhere/python3", "its interpreter"), ("#!/bin/sh\r", "carriage return"), ("exit 0", "`#!`")]
    {
        let place = Place::new();
        let script = place.path().join("tool");
        fs::write(&script, format!("{first_line}\nexit 0\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        place.write("provider.yaml", &provider(script.to_str().unwrap(), &[]));
        place.write("run.yaml", &run("a", ""));
        let (ran, items) = place.json();
        let status = &items[0]["status"];
        assert_eq!(status["reason"], "ProviderMissing", "{ran:?}");
        assert!(status["message"].as_str().unwrap().contains(words), "{status}");
    }
}

#[test]
fn a_terminal_of_few_columns_or_none_is_no_trouble() {
    // `script` gives the command a terminal of its own.
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("skipped: no `script` here");
        return;
    }
    let place = Place::shell("echo hello", &["a"]);
    let line = format!("{AGENTS} run -f {} --out {}", place.manifests().display(), place.out().display());
    for (environment, wants_escapes) in [("TERM=xterm", true), ("TERM=dumb", false), ("TERM=", false)] {
        let output = Command::new("script")
            .args(["-qec", &format!("stty cols 20; env {environment} {line}"), "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{environment}: {text}");
        assert!(text.contains("hello"), "{environment}: {text}");
        assert_eq!(text.contains('\u{1b}'), wants_escapes, "{environment}: {text:?}");
    }
}
