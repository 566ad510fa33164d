//! Attacks of `tests/attacks.yaml` on the runner, through its real binary.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use agents_core::{plan::digest::sha256, report::Report};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

/// Runs the runner on a spec whose provider is `sh -c script`; the spec may be changed before. Its exit code, output and
/// report.
fn run(folder: &Path, script: &str, change: impl FnOnce(&mut Value)) -> (i32, String, Report) {
    let place = |name: &str| folder.join(name).display().to_string();
    let mut spec = json!({
        "schemaVersion": "agents.proompteng.ai/runner/v1",
        "provider": "test",
        "providerSpec": {"binary": "/bin/sh", "argsTemplate": ["-c", script]},
        "run": {"name": "run-1", "namespace": "ns", "uid": "uid-1", "attempt": 1},
        "limits": {"graceSeconds": 1, "timeoutSeconds": 60},
        "roots": {"workspace": place("workspace"), "home": place("home")},
    });
    change(&mut spec);
    fs::create_dir_all(folder.join("workspace")).unwrap();
    fs::write(folder.join("spec.json"), spec.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_agent-runner"))
        .arg(folder.join("spec.json"))
        .env_remove("AGENT_RUNNER_ACTIVE")
        .env("AGENT_TERMINATION_PATH", folder.join("message"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = fs::read_to_string(folder.join("workspace/.agent/status.json"))
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)));
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        serde_json::from_str(&text).unwrap(),
    )
}

#[test]
fn a_kubeconfig_as_input_is_text_to_us() {
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("proof");
    let config = format!(
        "apiVersion: v1\nkind: Config\nusers:\n- name: u\n  user:\n    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      \
         command: touch\n      args: ['{0}']\n    auth-provider: {{name: gcp, config: {{cmd-path: 'touch {0}'}}}}\n# {{{{ run.name }}}} \
         $(touch {0})\n",
        proof.display()
    );
    let script = "cat \"$HOME/.kube/config\"; printf %s \"$AGENT_INPUT_KUBECONFIG\"";
    let (code, out, report) = run(folder.path(), script, |spec| {
        spec["inputs"] = json!({"kubeconfig": config});
        spec["env"] =
            json!([{"name": "KUBECONFIG", "value": "/root/.kube/config"}, {"name": "HOME", "value": "/root"}]);
        spec["providerSpec"]["inputFiles"] =
            json!([{"path": "/root/.kube/config", "content": "{{ inputs.kubeconfig }}"}]);
    });
    assert_eq!(code, 0, "{report:?}");
    assert_eq!(out, format!("{config}{config}"));
    assert!(!proof.exists(), "something of it was executed");
}

#[test]
fn what_is_said_of_an_output_is_true_of_what_lies_there() {
    let folder = tempfile::tempdir().unwrap();
    // The provider ends while a child of it, out of its group, still writes, truncates and replaces.
    let script = "mkdir -p $AGENT_OUTPUTS_DIR; echo first > $AGENT_OUTPUTS_DIR/o
        (setsid sh -c 'trap \"\" TERM; cd $AGENT_OUTPUTS_DIR; touch begun; while :; do echo more >> o; : > o; cp o p; mv p o; echo x >> o; done' \
        >/dev/null 2>&1 &)
        while [ ! -e $AGENT_OUTPUTS_DIR/begun ]; do sleep 0.01; done; exit 0";
    let (code, _, report) = run(folder.path(), script, |spec| spec["outputs"] = json!([{"name": "o"}]));
    assert_eq!(code, 0, "{report:?}");
    let [output] = report.outputs.as_slice() else { panic!("{report:?}") };
    let bytes = fs::read(folder.path().join("workspace/.agent/outputs/o")).unwrap();
    assert_eq!(output.size_bytes, i64::try_from(bytes.len()).unwrap());
    assert_eq!(output.checksum, sha256(&bytes));
}

#[test]
fn a_value_is_one_argument_of_no_shell_and_has_every_byte_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let value = "-rf; `touch proof` $(touch proof) \"'\\ \u{feff}\u{202e}\u{200b}\u{1b}[2K\r\n\ttail\n";
    let (code, out, report) = run(folder.path(), "printf '%s|' \"$@\"", |spec| {
        spec["inputs"] = json!({"v": value});
        spec["providerSpec"]["argsTemplate"] =
            json!(["-c", "printf '%s|' \"$@\"", "sh", "{{ inputs.v }}", "{{ inputs.v }}x"]);
    });
    assert_eq!(code, 0, "{report:?}");
    assert_eq!(out, format!("{value}|{value}x|"));
    assert!(!folder.path().join("workspace/proof").exists());
}

#[test]
fn a_nul_is_refused_where_no_program_can_take_it_and_kept_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, report) = run(folder.path(), "exit 0", |spec| {
        spec["implementation"] = json!({"text": "a\0b"});
        spec["providerSpec"]["argsTemplate"] = json!(["-c", "{{ implementation.text }}"]);
    });
    assert_ne!(code, 0);
    assert!(report.error.as_deref().unwrap_or_default().contains("argsTemplate[1]"), "{report:?}");
    let folder = tempfile::tempdir().unwrap();
    let (code, out, report) = run(folder.path(), "od -An -c f", |spec| {
        spec["implementation"] = json!({"text": "a\0b"});
        spec["providerSpec"]["inputFiles"] = json!([{"path": "/workspace/f", "content": "{{ implementation.text }}"}]);
    });
    assert_eq!((code, out.split_whitespace().collect::<Vec<_>>()), (0, vec!["a", "\\0", "b"]), "{report:?}");
}

#[test]
fn a_folder_swapped_for_a_link_while_files_are_written_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (workspace, victim) = (folder.path().join("workspace"), folder.path().join("victim"));
    let (link, real) = (workspace.join("link"), workspace.join("dir"));
    fs::create_dir_all(&real).unwrap();
    fs::create_dir(&victim).unwrap();
    symlink(&victim, &link).unwrap();
    let swapping = AtomicBool::new(true);
    let (swaps, inside) = thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0;
            while swapping.load(Ordering::Relaxed) {
                // At once for whoever resolves the path: there is always one of the two.
                renameat2(AT_FDCWD, &link, AT_FDCWD, &real, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        let files: Vec<Value> =
            (0..100).map(|n| json!({"path": format!("/workspace/dir/{n}"), "content": "bad"})).collect();
        let mut inside = 0;
        for _ in 0..10 {
            let (code, _, report) = run(folder.path(), "exit 0", |spec| {
                spec["providerSpec"]["inputFiles"] = json!(files);
            });
            match report.reason.as_deref() {
                None => inside += 1,
                Some(reason) => assert_eq!((code, reason), (69, "PathDenied"), "{report:?}"),
            }
        }
        swapping.store(false, Ordering::Relaxed);
        (swapper.join().unwrap(), inside)
    });
    assert!(swaps > 100, "only {swaps} swaps while {inside} of 10 were written");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "a file was written through the link");
}

/// A name that would clear the line, forge another and turn what follows it.
const ORDERS: &str = "x\u{1b}[2K\r\nforged: Succeeded\u{9b}1A\u{202e}";

#[test]
fn what_others_wrote_gives_a_terminal_no_orders_and_forges_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let api = "agents.proompteng.ai/v1alpha1";
    let objects = [
        json!({"apiVersion": api, "kind": "AgentProvider", "metadata": {"name": "p"}, "spec": {"binary": format!("/nowhere/{ORDERS}")}}),
        json!({"apiVersion": api, "kind": "Agent", "metadata": {"name": "a"}, "spec": {"providerRef": {"name": "p"}}}),
        json!({
            "apiVersion": api, "kind": "AgentRun", "metadata": {"name": "r"},
            "spec": {"agentRef": {"name": "a"}, "implementation": {"inline": {"text": "t"}}},
        }),
    ];
    let text = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    // YAML takes this one only when it is spelled.
    let spelled = |text: &str| text.replace('\u{9b}', "\\u009b");
    fs::write(folder.path().join("all.yaml"), spelled(&text)).unwrap();
    let broken = json!({"apiVersion": api, "kind": "Agent", "metadata": {"name": "b"}, "spec": {ORDERS: 1, "providerRef": {"name": ORDERS}}});
    fs::write(folder.path().join("broken.json"), spelled(&broken.to_string())).unwrap();
    let agents = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
        command.args(arguments).current_dir(folder.path()).env("RUST_LOG", "debug").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(!output.status.success());
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
    };
    for (said, wanted) in [
        (agents(&["run", "-f", "all.yaml"]), "ProviderMissing"),
        (agents(&["lint", "-f", "broken.json"]), "not a known field"),
        (agents(&["run", "-f", "broken.json"]), "not a known field"),
    ] {
        assert!(said.contains(wanted) && said.contains("forged"), "{said:?}");
        for order in ['\u{1b}', '\r', '\u{9b}', '\u{202e}'] {
            assert!(!said.contains(order), "{said:?}");
        }
        assert!(said.lines().all(|line| !line.starts_with("forged")), "{said}");
    }
}
