//! What a local run makes of the other objects of its folder, through the real binary: what acts on them in a cluster acts
//! on them here, and their statuses outlast the command.

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use common::{Place, Ran, send, until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn signal(name: &str) -> String {
    let schema = json!({"type": "object", "required": ["version"], "properties": {"version": {"type": "string"}}});
    object("Signal", name, &json!({"channel": "http", "payloadSchema": schema}))
}

fn delivery(name: &str, id: &str, payload: &Value) -> String {
    let spec = json!({"signalRef": {"name": "deployed"}, "deliveryId": id, "payload": payload});
    object("SignalDelivery", name, &spec)
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    let api_version = "signals.proompteng.ai/v1alpha1";
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

fn record(place: &Place, kind: &str, name: &str) -> PathBuf {
    place.out().join(format!(".objects/{kind}/default/{name}.yaml"))
}

/// A record as JSON.
fn recorded(place: &Place, kind: &str, name: &str) -> Value {
    let path = record(place, kind, name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap()
}

fn said(ran: &Ran, what: &str) -> bool {
    ran.err.lines().any(|line| line.starts_with(what))
}

#[test]
fn deliveries_are_judged_once_and_a_second_command_goes_on_from_what_was_said() {
    let place = Place::shell("echo ran", &["a"]);
    place.write("signal.yaml", &signal("deployed"));
    place.write("first.yaml", &delivery("d-1", "ci/1", &json!({"version": "1"})));
    place.write("wrong.yaml", &delivery("d-2", "ci/2", &json!({"version": 5})));
    let ran = place.run();
    assert_eq!((ran.code, ran.out.lines().next()), (Some(0), Some("ran")), "{ran:?}");
    for line in [
        "SignalDelivery/d-1: Delivered",
        "SignalDelivery/d-2: Invalid",
        "SignalDelivery/d-2: PayloadRejected: spec.payload.version: ",
        "Signal/deployed: Ready",
    ] {
        assert!(said(&ran, line), "{line}: {ran:?}");
    }
    assert!(!ran.err.contains("left out"), "{ran:?}");
    let first = recorded(&place, "SignalDelivery", "d-1");
    assert_eq!((&first["kind"], &first["status"]["phase"]), (&json!("SignalDelivery"), &json!("Delivered")));
    let at = &first["status"]["deliveredAt"];
    assert_eq!(&recorded(&place, "Signal", "deployed")["status"]["lastDeliveryAt"], at);
    assert_eq!(fs::metadata(record(&place, "Signal", "deployed")).unwrap().permissions().mode() & 0o777, 0o600);

    // The same id again, saying the same and something else, beside the first, which is not judged again.
    place.write("again.yaml", &delivery("a-3", "ci/1", &json!({"version": "1"})));
    place.write("other.yaml", &delivery("a-4", "ci/1", &json!({"version": "2"})));
    let ran = place.run();
    assert!(said(&ran, "SignalDelivery/a-3: Duplicate") && said(&ran, "SignalDelivery/a-4: Conflict: "), "{ran:?}");
    assert!(!said(&ran, "SignalDelivery/d-1") && !said(&ran, "Signal/deployed"), "{ran:?}");
    assert_eq!(recorded(&place, "SignalDelivery", "d-1"), first);

    // With another spec it is another delivery.
    place.write("wrong.yaml", &delivery("d-2", "ci/2", &json!({"version": "2"})));
    let before = recorded(&place, "SignalDelivery", "d-2");
    let ran = place.run();
    assert!(said(&ran, "SignalDelivery/d-2: Delivered"), "{ran:?}");
    assert_ne!(recorded(&place, "SignalDelivery", "d-2")["metadata"]["uid"], before["metadata"]["uid"]);
}

/// A run that ends at once does not cut short what is to be said of many deliveries of one id.
#[test]
fn one_of_many_deliveries_of_an_id_is_delivered_however_short_the_run() {
    let place = Place::shell("true", &["a"]);
    place.write("signal.yaml", &signal("deployed"));
    // What is written first counts, whatever its name.
    let all = (0..60).rev().map(|n| delivery(&format!("d-{n}"), "ci/1", &json!({"version": n.to_string()})));
    let all: Vec<_> = all.collect();
    place.write("all.yaml", &all.join("\n---\n"));
    let ran = place.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let phases = (0..60).map(|n| recorded(&place, "SignalDelivery", &format!("d-{n}"))["status"]["phase"].clone());
    let phases: Vec<_> = phases.map(|phase| phase.as_str().unwrap_or_default().to_owned()).collect();
    let count = |wanted: &str| phases.iter().filter(|phase| *phase == wanted).count();
    assert_eq!((phases[59].as_str(), count("Invalid")), ("Delivered", 59), "{phases:?}");
}

#[test]
fn a_record_that_is_none_is_named_and_left_alone() {
    let place = Place::shell("echo started >> \"$PLACE/started\"", &["a"]);
    place.write("signal.yaml", &signal("deployed"));
    assert_eq!(place.run().code, Some(0));
    let path = record(&place, "Signal", "deployed");
    let first = fs::read_to_string(&path).unwrap();
    for (text, problem) in [
        ("a: [b", "it is no record: no YAML"),
        ("garbage", "it is no record"),
        ("[1]", "it is no record"),
        ("a: b", "it is no record: missing field"),
        (
            &first.replace("name: deployed", "name: other"),
            "it is the record of another object, Signal/other in default",
        ),
        (&first.replace("kind: Signal", "kind: Agent"), "it is the record of another object, Agent/deployed"),
        (&first.replace("uid: ", "old: "), "metadata.uid is missing"),
        (&first.replace("phase: Ready", "phase: [Ready]"), "its status is none of Signal"),
    ] {
        assert_ne!(text, first);
        fs::write(&path, text).unwrap();
        let ran = place.run();
        assert!(ran.code == Some(2) && ran.err.contains(problem) && ran.err.contains("deployed.yaml"), "{ran:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    fs::remove_file(&path).unwrap();
    // One that never begins, one without an end, and none at all.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let ran = place.run();
    assert!(ran.code == Some(2) && ran.err.contains("it is no file"), "{ran:?}");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_eq!(place.run().code, Some(2));
    fs::remove_file(&path).unwrap();
    assert_eq!(place.run().code, Some(0));
    assert_eq!(place.lines_of("started"), 2, "nothing is run before");
}

#[test]
fn two_commands_at_once_do_not_write_the_same_records() {
    let place = Place::shell("touch \"$PLACE/begun\"; while [ ! -e \"$PLACE/go\" ]; do sleep 0.05; done", &["a"]);
    place.write("signal.yaml", &signal("deployed"));
    let first = place.listening().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.wait_for("begun");
    until("the record", || record(&place, "Signal", "deployed").exists());
    // Stopped, it goes on holding what it keeps.
    send(&first, Signal::SIGSTOP);
    fs::write(place.path().join("go"), "").unwrap();
    let ran = place.run();
    send(&first, Signal::SIGCONT);
    assert!(ran.code == Some(0) && said(&ran, "another command works in "), "{ran:?}");
    let first = Ran::of(first.wait_with_output().unwrap());
    assert_eq!(first.code, Some(0), "{first:?}");
}

#[test]
fn what_a_signal_does_not_take_is_told_before_anything_is_sent() {
    let place = Place::new();
    place.write("signal.yaml", &signal("deployed"));
    place.write("wrong.yaml", &delivery("d", "ci/2", &json!({"version": 5})));
    let lint = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
        let output = command.args(["lint", "--partial", "-f"]).arg(place.manifests()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, out) = lint();
    assert!(code == Some(1) && out.contains("SignalDelivery/d spec.payload.version"), "{out}");
    place.write("wrong.yaml", &delivery("d", "ci/2", &json!({"version": "5"})));
    assert_eq!(lint().0, Some(0));
}
