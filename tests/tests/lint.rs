//! Ring 1: `agents lint` over folders: what it says, where, and how it exits.

use std::path::PathBuf;

use agents_kube::lint::{Format, Options, Report, Severity, lint};
use agents_runtime::manifest::Source;

const FOLDER: &str = r#"apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentProvider
metadata: {name: shell}
spec:
  binary: sh
  argsTemplate:
    - -c
    - "{{ inputs.command }}"
    - "{{ secrets.token }}"
    - "{{ inputs.extra | shout }}"
  inputSchema:
    type: object
    required: [command, branch]
    properties: {command: {}, branch: {}, extra: {}}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: Agent
metadata: {name: worker}
spec:
  providerRef: {name: shel}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: Agent
metadata: {name: other}
spec:
  providerRef: {name: shell}
  env:
    - {name: AGENT_RUN_NAME, value: mine}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRun
metadata: {name: misspelt, labels: {n: 1}}
spec:
  agentRef: {name: worker}
  implementation: {inline: {text: Look.}}
  timeoutSecond: 5
  priority: high
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRun
metadata: {name: workless}
spec:
  agentRef: {name: worker}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: t}
---
apiVersion: agents.proompteng.ai/v1
kind: AgentRun
metadata: {name: old}
---
apiVersion: agents.proompteng.ai/v1alpha1
kind: AgentRunn
metadata: {name: x}
---
just a text
"#;

fn judged(text: &str, partial: bool) -> Report {
    let source = Source::Text { name: "all.yaml".to_owned(), folder: PathBuf::new(), text: text.to_owned() };
    lint(&[source], Options { partial }).unwrap()
}

#[test]
fn people_read_file_line_rule_field_and_hint() {
    insta::assert_snapshot!(judged(FOLDER, false).render(Format::Text));
}

#[test]
fn workflows_get_annotations() {
    insta::assert_snapshot!(judged(FOLDER, false).render(Format::Github));
}

#[test]
fn programs_read_the_same_as_people() {
    let report = judged(FOLDER, false);
    let json: serde_json::Value = serde_json::from_str(&report.render(Format::Json)).unwrap();
    assert_eq!(json["errors"], report.count(Severity::Error));
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    let text = report.render(Format::Text);
    for finding in findings.iter().filter(|finding| finding["line"].is_u64()) {
        let line = format!(
            "all.yaml:{}:{}: {} [{}] ",
            finding["line"],
            finding["column"],
            finding["severity"].as_str().unwrap(),
            finding["rule"].as_str().unwrap()
        );
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

/// A run whose objects are all here is planned: what its values cannot render is told at the run.
#[test]
fn runs_are_planned_with_their_values() {
    let sound = |parameters: &str| {
        format!(
            "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {{name: p}}\nspec:\n  binary: sh\n  \
             argsTemplate: [\"{{{{ inputs.command }}}}\"]\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\n\
             metadata: {{name: a}}\nspec: {{providerRef: {{name: p}}}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\n\
             kind: AgentRun\nmetadata: {{generateName: r-}}\nspec:\n  agentRef: {{name: a}}\n  implementation: {{inline: \
             {{text: Look.}}}}\n{parameters}"
        )
    };
    assert_eq!(judged(&sound("  parameters: {command: ls}\n"), false).findings, vec![]);
    let report = judged(&sound(""), false);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.object, "AgentRun/r-");
    assert_eq!(finding.fault.rule.as_str(), "template");
    assert!(finding.fault.problem.contains("`inputs.command` is not defined"), "{finding:?}");
}

/// What the kernel takes of arguments and variables is known once they are rendered.
#[test]
fn runs_that_no_kernel_would_start_are_told() {
    let run = |args: usize, bytes: usize| {
        let args = vec!["'{{ implementation.text }}'"; args].join(", ");
        let text = "x".repeat(bytes);
        judged(
            &format!(
                "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {{name: p}}\nspec: {{binary: sh, \
                 argsTemplate: [{args}]}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\nmetadata: {{name: \
                 a}}\nspec: {{providerRef: {{name: p}}}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\n\
                 metadata: {{name: r}}\nspec:\n  agentRef: {{name: a}}\n  implementation: {{inline: {{text: {text}}}}}\n"
            ),
            false,
        )
    };
    assert_eq!(run(1, 131_071).findings, vec![]);
    assert_eq!(run(12, 120_000).findings, vec![]);
    for (args, bytes, field) in [(1, 131_072, "argsTemplate[0]: "), (20, 120_000, "argsTemplate: ")] {
        let report = run(args, bytes);
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!((finding.severity, finding.object.as_str()), (Severity::Error, "AgentRun/r"));
        assert!(finding.fault.problem.contains(field), "{finding:?}");
    }
}

/// What etcd takes of one object counts escapes that a file does not have.
#[test]
fn a_run_that_leaves_no_room_for_its_status_is_told_with_its_size() {
    let run = |bytes: usize| {
        let text = "<".repeat(bytes);
        judged(
            &format!(
                "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: r}}\nspec:\n  agentRef: {{name: \
                 a}}\n  implementation: {{inline: {{text: t}}}}\n  payloads: {{a: '{text}', b: '{text}'}}\n"
            ),
            true,
        )
    };
    assert_eq!(run(110_000).count(Severity::Error), 0);
    let report = run(130_000);
    let errors: Vec<_> = report.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let [finding] = errors[..] else { panic!("{errors:?}") };
    assert_eq!((finding.object.as_str(), finding.fault.field.as_str()), ("AgentRun/r", "spec"));
    let said = &finding.fault.problem;
    assert!(said.starts_with("the run takes 1560") && said.contains("no room for its status"), "{said}");
}

/// A default of the Agent and a parameter of the run can be one variable without either being wrong alone.
#[test]
fn parameters_of_one_variable_are_found_across_objects() {
    let folder = |parameter: &str| {
        judged(
            &format!(
                "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {{name: p}}\nspec: {{binary: sh}}\n\
                 ---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec: {{providerRef: \
                 {{name: p}}, inputs: {{a-b: '1'}}}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\n\
                 metadata: {{name: r}}\nspec:\n  agentRef: {{name: a}}\n  implementation: {{inline: {{text: t}}}}\n  \
                 parameters: {{{parameter}: '2'}}\n"
            ),
            false,
        )
    };
    assert_eq!(folder("a-b").findings, vec![]);
    let report = folder("a_b");
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert!(finding.object == "AgentRun/r" && finding.severity == Severity::Error, "{finding:?}");
    assert!(finding.fault.problem.contains("are both the variable AGENT_INPUT_A_B"), "{finding:?}");
}

/// A repository named by a path is one to `agents run` alone; whoever applies the manifest to a cluster is told.
#[test]
fn a_repository_by_its_path_is_a_note() {
    let run = |url: &str| {
        judged(
            &format!(
                "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: r}}\nspec:\n  agentRef: {{name: \
                 a}}\n  implementation: {{inline: {{text: t}}}}\n  execution: {{coordinates: {{git: {{url: '{url}'}}}}}}\n"
            ),
            true,
        )
    };
    for url in [".", "../repository", "/srv/repository"] {
        let report = run(url);
        assert_eq!(report.count(Severity::Error), 0, "{report:?}");
        let notes = report.findings.iter().filter(|finding| finding.fault.problem.contains("only to `agents run`"));
        assert_eq!(notes.count(), 1, "{report:?}");
    }
    assert_eq!(run("https://u@example.com/a").count(Severity::Error), 1);
}

#[test]
fn objects_of_the_cluster_may_be_taken_for_granted() {
    let agents = "apiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {providerRef: \
                  {name: p}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {name: q}\n\
                  spec: {binary: sh}\n";
    assert_eq!(judged(agents, false).count(Severity::Error), 1);
    let partial = judged(agents, true);
    assert_eq!((partial.count(Severity::Error), partial.count(Severity::Note)), (0, 1));
}

/// A run that a cluster would keep waiting says so before it is applied, and is none the less no fault.
#[test]
fn what_nothing_carries_out_is_named_where_it_stands() {
    let report = judged(
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {name: p}\nspec: {binary: sh}\n---\n\
         apiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec:\n  providerRef: {name: p}\n  \
         concurrency: {limit: 2}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {name: r}\nspec:\n  \
         agentRef: {name: a}\n  implementation: {inline: {text: t}}\n  systemPrompt: be brief\n  vcsPolicy: {mode: none}\n  \
         runtime: {type: argo, job: {nodeSelector: {a: b}}}\n",
        false,
    );
    assert_eq!(report.count(Severity::Error), 0, "{report:?}");
    let said: Vec<_> =
        report.findings.iter().map(|finding| (finding.fault.rule.as_str(), &*finding.fault.problem)).collect();
    let expected = [
        ("spec.systemPrompt", "NotSupported"),
        ("spec.vcsPolicy.mode", "NotSupported"),
        ("Agent/a spec.concurrency.limit", "NotSupported"),
        ("runtime.job.nodeSelector", "NotSupported"),
        ("runtime argo", "RuntimeNotConfigured"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (field, reason) in expected {
        let found = said.iter().any(|(rule, said)| *rule == "support" && said.contains(field) && said.contains(reason));
        assert!(found, "{field}: {said:#?}");
    }
}

/// Any name may be that of a runtime that somebody brings, so a slip is told as what it may be.
#[test]
fn a_runtime_that_no_controller_of_ours_has_is_named_with_what_was_meant() {
    for (runtime, hint) in [("jobs", "did you mean job?"), ("batch.acme.example", "`job` is what a cluster executes")] {
        let report = judged(
            &format!(
                "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentProvider\nmetadata: {{name: p}}\nspec: {{binary: \
                 sh}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec: \
                 {{providerRef: {{name: p}}}}\n---\napiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: \
                 {{name: r}}\nspec:\n  agentRef: {{name: a}}\n  implementation: {{inline: {{text: t}}}}\n  runtime: {{type: \
                 {runtime}}}\n"
            ),
            false,
        );
        let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
        assert_eq!((finding.severity, finding.fault.field.as_str()), (Severity::Note, "spec.runtime.type"));
        assert!(finding.fault.problem.contains(runtime) && finding.fault.hint.as_deref() == Some(hint), "{finding:?}");
    }
}
