//! `agents lint` through the real binary: exit codes and forms of output.

use std::{fs, process::Command};

fn lint(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_agents")).arg("lint").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_code_says_whether_something_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, _, err) = lint(&["-f", path]);
    assert_eq!(code, Some(2), "nothing to judge: {err}");
    assert_eq!(lint(&["-f", "/nowhere"]).0, Some(2));
    assert_eq!(lint(&[]).0, Some(2));

    let provider = "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {name: p}\nspec: ";
    fs::write(folder.path().join("p.yaml"), format!("{provider}{{binary: sh}}\n")).unwrap();
    let (code, out, _) = lint(&["-f", path]);
    assert_eq!((code, out.as_str()), (Some(0), "1 object: no error, 0 notes\n"));

    fs::write(folder.path().join("p.yaml"), format!("{provider}{{binary: 5}}\n")).unwrap();
    let (code, out, _) = lint(&["-f", path]);
    assert_eq!(code, Some(1));
    assert!(out.contains("p.yaml:4:16: error [type] AgentProvider/p spec.binary is the integer 5"), "{out}");
    let (code, out, _) = lint(&["-f", path, "-o", "json"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("\"rule\": \"type\""), "{out}");
    let (_, out, _) = lint(&["-f", path, "-o", "github"]);
    assert!(out.starts_with("::error file="), "{out}");
}
