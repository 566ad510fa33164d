//! examples/codex as a person runs it without a cluster: the published CLI, the scripted model, a real repository.

use std::{fs, path::Path, process::Command};

use agents_tests::{
    agents::codex_binary,
    model::{ModelServer, Script},
    product::agents,
};
use serde_json::Value;

fn git(at: &Path, arguments: &[&str]) -> String {
    let who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"];
    let output = Command::new("git").args(who).args(arguments).current_dir(at).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_commits_as_a_local_process_and_its_usage_stands_in_status() {
    let model = ModelServer::start(Script::ready("edit-and-commit").unwrap()).await.unwrap();
    let place = tempfile::Builder::new().prefix("codex-local-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let repository = place.path().join("repository");
    fs::create_dir(&repository).unwrap();
    fs::write(repository.join("README.md"), "# A repository\n").unwrap();
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message=Begin"]);
    let begin = git(&repository, &["rev-parse", "HEAD"]);
    let codex = codex_binary().unwrap();
    let path = format!("{}:{}", codex.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let runs = place.path().join("runs");
    let output = tokio::process::Command::new(agents().unwrap())
        .args(["run", "--output=json", "--filename"])
        .arg(xtask::workspace().join("examples/codex"))
        .arg("--out")
        .arg(&runs)
        .arg(format!("--param=repository={}", repository.display()))
        .arg(format!("--param=modelUrl={}/v1", model.url().trim_end_matches("/v1")))
        .arg("--param=model=edit-and-commit")
        .env("PATH", path)
        .env("OPENAI_API_KEY", "sk-test-not-a-key")
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let run: Value = serde_json::from_str(&stdout).unwrap();
    // One run prints as an object, several as a list.
    let status = if run["items"].is_array() { &run["items"][0]["status"] } else { &run["status"] };
    assert_eq!(status["phase"], "Succeeded", "{run:#}");
    assert_eq!(status["usage"]["inputTokens"], 3900, "{run:#}");
    assert_eq!(status["usage"]["outputTokens"], 120, "{run:#}");
    assert_eq!(status["vcs"]["baseCommit"], begin.as_str(), "{run:#}");
    assert_eq!(status["vcs"]["commits"], 1, "{run:#}");
    let checkout = runs.join("codex-review-note/workspace/repository");
    assert_eq!(git(&checkout, &["rev-parse", "HEAD"]), status["vcs"]["headCommit"].as_str().unwrap());
    assert_eq!(git(&checkout, &["log", "-1", "--format=%s"]), "Add the review note");
    let mut texts = vec![stdout, stderr.into_owned(), run.to_string()];
    texts.push(fs::read_to_string(runs.join("codex-review-note/log.txt")).unwrap());
    texts.push(fs::read_to_string(runs.join("codex-review-note/run.yaml")).unwrap());
    assert!(texts.iter().all(|text| !text.contains("sk-test-not-a-key")), "the key is written somewhere");
}
