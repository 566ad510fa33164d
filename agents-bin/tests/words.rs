//! What the programs say when something is wrong: our words, the remedy, and the right exit code.

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use common::{Place, Ran};

const AGENTS: &str = env!("CARGO_BIN_EXE_agents");

fn agents(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(AGENTS).args(arguments).env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap())
}

/// Whatever a library says of itself, of its types or of the system's numbers.
fn is_ours(text: &str) -> bool {
    !["ServiceError", "HyperError", "os error", "client error", "invalid type", "Err(", "<html", "expected a"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn kubeconfig(folder: &Path, server: &str) -> PathBuf {
    let path = folder.join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// A server that gives everybody this answer.
fn answering(status: &'static str, kind: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let _ = connection.read(&mut [0; 4096]);
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let _ = connection.write_all(format!("{head}{body}").as_bytes());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_misspelt_level_is_refused_at_the_start_with_the_words_there_are() {
    let place = Place::shell("touch \"$PLACE/started\"", &["a"]);
    let ran = Ran::of(place.command().env("RUST_LOG", "inof").output().unwrap());
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("\"inof\"") && ran.err.contains("off, error, warn, info, debug, trace"), "{ran:?}");
    assert!(!place.path().join("started").exists() && !place.out().exists());
    let mut controller = Command::new(AGENTS);
    controller.args(["controller", "--runner-image=i"]).env("KUBECONFIG", "/absent");
    let ran = Ran::of(controller.env("RUST_LOG", "info,agents_kube=debgu").output().unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.err.contains("agents_kube=debgu") && ran.err.contains("off, error, warn, info, debug, trace"),
        "{ran:?}"
    );
    let ran = Ran::of(place.command().env("RUST_LOG", "").output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn a_limit_of_the_size_of_files_is_a_stream_that_takes_no_more() {
    let place = Place::new();
    let limited = |rest: &str| {
        let script = format!("ulimit -f 1; exec \"$0\" {rest}");
        Ran::of(Command::new("sh").args(["-c", &script, AGENTS]).current_dir(place.path()).output().unwrap())
    };
    let ran = limited("run --help > help");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("standard output did not take everything"), "{ran:?}");
    assert!(fs::metadata(place.path().join("help")).unwrap().len() > 0);
}

#[test]
fn a_cluster_without_the_definitions_is_no_run_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path(), &answering("404 Not Found", "text/plain", "404 page not found\n"));
    let ran = agents(&["wait", "a", "--kubeconfig", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("does not serve agentruns.agents.proompteng.ai"), "{ran:?}");
    assert!(ran.err.contains("agents crds apply") && !ran.err.contains("page not found"), "{ran:?}");
}

#[test]
fn what_is_no_api_server_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    for status in ["404 Not Found", "200 OK"] {
        let config = kubeconfig(folder.path(), &answering(status, "text/html", "<html><p>Log in</p></html>"));
        for command in [&["wait", "a"][..], &["crds", "list"]] {
            let ran = agents(&[command, &["--kubeconfig", config.to_str().unwrap()]].concat());
            assert_eq!(ran.code, Some(2), "{ran:?}");
            assert!(ran.err.contains("what answers is no API server"), "{command:?} {status}: {ran:?}");
            assert!(is_ours(&ran.err), "{ran:?}");
        }
    }
}

#[test]
fn a_cluster_that_cannot_be_reached_and_a_kubeconfig_that_cannot_be_used_are_said_in_our_words() {
    let folder = tempfile::tempdir().unwrap();
    let config = kubeconfig(folder.path(), "http://127.0.0.1:1");
    let config = config.to_str().unwrap();
    let broken = folder.path().join("broken");
    fs::write(&broken, "a: [").unwrap();
    let broken = broken.to_str().unwrap();
    for (arguments, wanted) in [
        (&["wait", "a", "--kubeconfig", config][..], "the API server refuses connections"),
        (&["crds", "list", "--kubeconfig", config], "the API server refuses connections"),
        (&["crds", "diff", "--kubeconfig", config, "--context", "absent"], "it has no context \"absent\""),
        (&["wait", "a", "--kubeconfig", broken], "it is no YAML of a kubeconfig"),
    ] {
        let ran = agents(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(wanted) && is_ours(&ran.err), "{arguments:?}: {ran:?}");
    }
}
