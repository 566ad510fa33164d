//! `agents lint` through the real binary: exit codes, forms of output, and what it reads.

mod common;

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use common::{AGENT, Place, provider, run};

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

#[test]
fn whatever_can_be_read_like_a_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{AGENT}---\n{}\n---\n{}", provider("sh", &[]), run("a", ""));
    let fifo = folder.path().join("pipe.yaml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let writing = thread::spawn({
        let (fifo, text) = (fifo.clone(), text.clone());
        move || fs::write(fifo, text).unwrap()
    });
    let (code, out, err) = lint(&["-f", fifo.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (Some(0), "3 objects: no error, 0 notes\n"), "{err}");
    writing.join().unwrap();
    for name in ["/dev/stdin", "-", "/proc/self/fd/0"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_agents"))
            .args(["lint", "-f", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "3 objects: no error, 0 notes\n", "{name}");
    }
    let (code, _, err) = lint(&["-f", "-", "-f", "-"]);
    assert!(code == Some(2) && err.contains("given twice"), "{err}");
    let (code, _, err) = lint(&["-f", "https://example.com/a.yaml"]);
    assert!(code == Some(2) && err.contains("curl"), "{err}");
}

#[test]
fn the_items_of_a_list_are_judged_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.json");
    let path = file.to_str().unwrap();
    let spec = |more: &str| {
        format!(
            "\"spec\": {{\"agentRef\": {{\"name\": \"x\"}}, \"implementation\": {{\"inline\": {{\"text\": \"t\"}}}}{more}}}"
        )
    };
    let whole = "\"apiVersion\": \"agents.proompteng.ai/v1alpha1\", \"kind\": \"AgentRun\", ";
    let item = |head: &str, name: &str, more: &str| {
        format!("{{{head}\"metadata\": {{\"name\": \"{name}\"}}, {}}}", spec(more))
    };
    let list = |head: &str, items: &[String]| format!("{{{head}, \"items\": [\n{}\n]}}", items.join(",\n"));
    let nonsense = ", \"nonsense\": 1";
    for (text, at, objects) in [
        (
            list(
                "\"apiVersion\": \"v1\", \"kind\": \"List\", \"metadata\": {}",
                &[item(whole, "a", ""), item(whole, "b", nonsense)],
            ),
            "list.json:3:",
            2,
        ),
        (
            list(
                "\"apiVersion\": \"agents.proompteng.ai/v1alpha1\", \"kind\": \"AgentRunList\"",
                &[item("", "a", ""), item("", "b", nonsense)],
            ),
            "list.json:3:",
            2,
        ),
    ] {
        fs::write(&file, &text).unwrap();
        let (code, out, _) = lint(&["--partial", "-f", path]);
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains(at) && out.contains("AgentRun/b items[1].spec.nonsense is not a known field"), "{out}");
        assert!(out.contains(&format!("{objects} objects: 1 error")), "{out}");
        fs::write(&file, text.replace(nonsense, "")).unwrap();
        assert_eq!(lint(&["--partial", "-f", path]).0, Some(0));
    }
    fs::write(&file, list("\"apiVersion\": \"v1\", \"kind\": \"List\"", &["5".to_owned()])).unwrap();
    let (code, out, _) = lint(&["-f", path]);
    assert!(code == Some(1) && out.contains("items[0] is the integer 5; an object is wanted"), "{out}");
    fs::write(&file, "{\"apiVersion\": \"v1\", \"kind\": \"List\"}").unwrap();
    let (code, out, _) = lint(&["-f", path]);
    assert!(code == Some(1) && out.contains("items is missing"), "{out}");
}

#[test]
fn what_is_not_read_is_named_and_nothing_judged_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for nothing in [
        "",
        "# a comment\n---\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
        "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": []}",
    ] {
        fs::write(folder.path().join("a.yaml"), nothing).unwrap();
        assert_eq!(lint(&["-f", path]).0, Some(2), "{nothing:?}");
    }
    fs::write(folder.path().join("a.yaml"), AGENT).unwrap();
    std::os::unix::fs::symlink("/nowhere", folder.path().join("gone.yaml")).unwrap();
    std::os::unix::fs::symlink("/usr", folder.path().join("elsewhere")).unwrap();
    nix::unistd::mkfifo(&folder.path().join("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, out, _) = lint(&["-f", path, "--partial"]);
    assert_eq!(code, Some(0), "{out}");
    for wanted in [
        "gone.yaml: note [document] is not read: a link that leads nowhere",
        "elsewhere: note [document] is not read: a link to a folder is not entered",
        "pipe.yaml: note [document] is not read: not a file",
    ] {
        assert!(out.contains(wanted), "{wanted} is missing in {out}");
    }
}

#[test]
fn folders_of_runs_are_no_manifests_and_what_runs_print_is() {
    let place = Place::shell("mkdir deep; echo '{' > deep/broken.json", &["a"]);
    let out = place.manifests().join("out");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
        command.args(["run", "-f", ".", "--out", "out"]).args(arguments).current_dir(place.manifests());
        common::Ran::of(command.output().unwrap())
    };
    for folder in ["a", "a-2", "a-3"] {
        let ran = run(&[]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(out.join(folder).join("run.yaml").exists());
        assert_eq!(ran.err.contains("not read: made by `agents run`"), folder != "a", "{ran:?}");
    }
    let (code, text, _) = lint(&["-f", place.manifests().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("out/a-3: note [document] is not read: made by `agents run`"), "{text}");
    // A folder that only says it is one is read.
    fs::write(place.manifests().join(".agents-run"), "x").unwrap();
    assert_eq!(lint(&["-f", place.manifests().to_str().unwrap()]).0, Some(0));
    // Named by a person, the folder means its run.
    let (code, text, _) = lint(&["--partial", "-f", out.join("a").to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("1 object: no error"), "{text}");
    for form in ["json", "yaml"] {
        let printed = run(&["-o", form]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        let file = place.path().join(format!("printed.{form}"));
        fs::write(&file, &printed.out).unwrap();
        let (code, text, _) = lint(&["--partial", "-f", file.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{text}");
        let again = rerun(&place, &file);
        assert_eq!(again.code, Some(0), "{again:?}");
    }
}

/// Runs what was printed, with the Agent and the provider it came from.
fn rerun(place: &Place, printed: &Path) -> common::Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agents"));
    command.args(["run", "-f"]).arg(printed);
    for name in ["agent.yaml", "provider.yaml"] {
        command.arg("-f").arg(place.manifests().join(name));
    }
    command.arg("--out").arg(place.out()).current_dir(place.path());
    common::Ran::of(command.output().unwrap())
}
