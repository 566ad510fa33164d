//! Standard output and standard error as people and programs hand them down: full, closed, slow, non-blocking.

mod common;

use std::{
    fs::OpenOptions,
    io::{PipeReader, PipeWriter, Read, pipe},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use common::{Place, Ran, send, until};

const AGENTS: &str = env!("CARGO_BIN_EXE_agents");

/// A pipe whose writing end would rather fail than wait.
fn impatient() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    (reader, writer)
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// Everything a reader gets that begins late and takes its time.
fn slowly(mut reader: PipeReader) -> String {
    let (mut text, mut chunk) = (Vec::new(), [0; 8192]);
    thread::sleep(Duration::from_millis(300));
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        text.extend_from_slice(&chunk[..count]);
        thread::sleep(Duration::from_millis(1));
    }
    String::from_utf8(text).unwrap()
}

/// Prints more than a pipe holds.
fn talkative() -> Place {
    Place::shell(
        "i=0; while [ $i -lt 3000 ]; do echo \"$i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done",
        &["a"],
    )
}

/// Manifests of which lint finds more than a pipe holds.
fn faulty() -> Place {
    let place = Place::new();
    let labels = (0..2000).map(|n| format!("    nonsense{n}: x\n")).collect::<Vec<_>>().concat();
    place.write(
        "bad.yaml",
        &format!("apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {{name: p}}\nspec:\n    binary: sh\n{labels}"),
    );
    place
}

#[test]
fn a_run_says_all_to_a_slow_reader_of_a_stream_that_does_not_wait() {
    for on_stderr in [false, true] {
        let place = talkative();
        let (reader, writer) = impatient();
        let mut command = place.command();
        if on_stderr {
            command.args(["-o", "name"]).stdout(Stdio::null()).stderr(writer);
        } else {
            command.stdout(writer).stderr(Stdio::null());
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        let text = slowly(reader);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(text.lines().filter(|line| line.ends_with("xxxx")).count(), 3000);
        assert!(on_stderr || text.contains("Completed"), "the table is missing");
    }
}

#[test]
fn every_other_command_says_all_to_a_slow_reader_too() {
    let place = faulty();
    let manifests = place.manifests();
    for (arguments, code) in [(vec!["lint", "-f", manifests.to_str().unwrap()], 1), (vec!["run", "--help"], 0)] {
        let (reader, writer) = impatient();
        let mut command = Command::new(AGENTS);
        command.args(&arguments).stdout(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let text = slowly(reader);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
        assert!(text.ends_with('\n') && text.len() > 500);
        if code == 1 {
            assert!(
                text.matches("is not a known field").count() == 2000 && text.ends_with(" errors, 0 notes\n"),
                "{}",
                text.len()
            );
        }
    }
}

#[test]
fn a_full_disk_is_told_and_no_success() {
    let place = Place::shell("echo hello", &["a"]);
    let manifests = place.manifests();
    let path = manifests.to_str().unwrap();
    for (arguments, code) in [
        (vec!["lint", "-f", path], 2),
        (vec!["lint", "-f", path, "-o", "json"], 2),
        (vec!["--version"], 2),
        (vec!["run", "--help"], 2),
    ] {
        let output = Command::new(AGENTS).args(&arguments).stdout(full()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            told.contains("error: standard output did not take everything: No space left"),
            "{arguments:?}: {told}"
        );
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
    for form in ["table", "json", "yaml", "name"] {
        let output = place.command().args(["-o", form]).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("standard output did not take everything"), "{form}: {told}");
        assert_eq!(output.status.code(), Some(1), "{form}");
    }
    let output = place.command().stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "what stood on standard error is lost");
    assert!(String::from_utf8(output.stdout).unwrap().contains("Completed"));
    // What went wrong by itself keeps its own exit code.
    let output = Command::new(AGENTS).args(["lint", "-f", "/nowhere"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(AGENTS).args(["wait", "x", "--kubeconfig", "/nowhere"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reader_that_has_gone_away_ends_nothing() {
    let closed = || {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        writer
    };
    let place = Place::shell("echo hello; echo x >> \"$PLACE/executions\"", &["a"]);
    let ran = Ran::of(place.command().stdout(closed()).stderr(Stdio::piped()).output().unwrap());
    assert_eq!((ran.code, place.lines_of("executions")), (Some(0), 1), "{ran:?}");
    assert!(!ran.err.contains("error"), "{ran:?}");
    let ran = Ran::of(place.command().stderr(closed()).stdout(Stdio::piped()).output().unwrap());
    assert!(ran.code == Some(0) && ran.out.contains("Completed"), "{ran:?}");
    let faulty = faulty();
    let output = Command::new(AGENTS).args(["lint", "-f"]).arg(faulty.manifests()).stdout(closed()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
}

#[test]
fn a_reader_that_takes_nothing_holds_up_no_run_and_no_signal() {
    use nix::sys::signal::Signal;
    let place = talkative();
    let (reader, writer) = pipe().unwrap();
    let mut command = place.command();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    // The run ends and is recorded although nobody reads.
    let record = place.out().join("a/run.yaml");
    until("the record", || std::fs::read_to_string(&record).is_ok_and(|text| text.contains("phase: Succeeded")));
    assert!(child.try_wait().unwrap().is_none(), "the output is not taken yet");
    send(&child, Signal::SIGTERM);
    thread::sleep(Duration::from_millis(200));
    send(&child, Signal::SIGTERM);
    until("the end", || child.try_wait().unwrap().is_some());
    drop(reader);
}

#[test]
fn standard_input_that_does_not_wait_is_read_to_its_end() {
    let (reader, writer) = pipe().unwrap();
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut command = Command::new(AGENTS);
    command.args(["lint", "--partial", "-f", "-"]).stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    thread::sleep(Duration::from_millis(200));
    agents_runtime::pipes::write_all(&writer, common::AGENT.as_bytes()).unwrap();
    drop(writer);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(ran.code == Some(0) && ran.out.contains("1 object: no error"), "{ran:?}");
}
