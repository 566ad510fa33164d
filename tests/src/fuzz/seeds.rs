//! Inputs that get deep, and words of each language. Files of the repository are read where there are some.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agents_runtime::spec_file;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask::workspace;

pub(super) const TEMPLATE_WORDS: &[&str] = &[
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{# ",
    " #}",
    "{%- ",
    " -%}",
    "for x in ",
    "payloads.l | lines ",
    "payloads.p",
    "inputs.a",
    "implementation.text",
    "run.name",
    "if ",
    "else",
    "endif",
    "endfor",
    "set x = ",
    "endset",
    "macro m(a)",
    "endmacro",
    "m(1)",
    "recursive",
    "loop(x)",
    "loop.index",
    " | tojson",
    " | upper",
    " | lower",
    " | trim",
    " | join(',')",
    " | lines",
    " | default('')",
    " | length",
    " | replace('x', 'yy')",
    " | trim('xy ')",
    " ~ ",
    " * 1000000",
    " == ",
    " < ",
    " in ",
    "x",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "'",
    "\"",
    "9223372036854775807",
    "raw",
    "endraw",
    "namespace()",
    "filter upper",
    "endfilter",
    "\u{1f600}",
    "with a = 1",
    "endwith",
    "autoescape",
    "include 'x'",
    "extends 'x'",
    "block b",
    "endblock",
];

pub(super) const SPEC_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "1",
    "-1",
    "1e400",
    "\"\"",
    "\"provider\"",
    "\"providerSpec\"",
    "\"binary\"",
    "\"argsTemplate\"",
    "\"envTemplate\"",
    "\"inputFiles\"",
    "\"path\"",
    "\"content\"",
    "\"inputs\"",
    "\"payloads\"",
    "\"run\"",
    "\"attempt\"",
    "\"uid\"",
    "\"limits\"",
    "\"timeoutSeconds\"",
    "18446744073709551616",
    "\"planDigest\"",
    "\"secretEnv\"",
    "\"roots\"",
    "\"git\"",
    "\"url\"",
    "\"outputs\"",
    "\"schemaVersion\"",
    "\"agents.proompteng.ai/runner/v1\"",
    "\\u0000",
    "\\ud800",
    "\"../x\"",
    "\"/workspace\"",
    "{{ inputs.a }}",
];

pub(super) const REPORT_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "1",
    "-1",
    "\"x\"",
    "\"schemaVersion\"",
    "\"status\"",
    "\"succeeded\"",
    "\"failed\"",
    "\"cancelled\"",
    "\"provider\"",
    "\"runUid\"",
    "\"attempt\"",
    "\"planDigest\"",
    "\"reason\"",
    "\"ProviderExited\"",
    "\"exitCode\"",
    "\"finishedAt\"",
    "\"1970-01-01T00:00:00Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"error\"",
    "\"outputs\"",
    "\"name\"",
    "\"path\"",
    "\"sizeBytes\"",
    "\"checksum\"",
    "\"usage\"",
    "\"inputTokens\"",
    "9223372036854775807",
    "\"vcs\"",
    "\"branch\"",
    "\"conversation\"",
    "\"truncated\"",
    "\u{1f600}",
    "\\u0001",
];

pub(super) const USAGE_WORDS: &[&str] = &[
    "{\"type\":\"thread.started\",\"thread_id\":\"a\"}\n",
    "{\"type\":\"thread.started\",\"thread_id\":\"b\"}\n",
    "{\"type\":\"turn.completed\",\"usage\":{\"input_tokens\":3,\"cached_input_tokens\":1,\"output_tokens\":2}}\n",
    "{\"type\":\"turn.completed\",\"usage\":{\"input_tokens\":-3}}\n",
    "9223372036854775807",
    "18446744073709551616",
    "-1",
    "1e99",
    "{",
    "}",
    "\n",
    "\r\n",
    "\"",
    "null",
    "\u{1f600}",
    "\\ud800",
    "\"usage\":",
    "\"input_tokens\":",
];

pub(super) const GIT_WORDS: &[&str] = &[
    "https://",
    "http://",
    "ssh://",
    "git://",
    "file://",
    "ext::",
    "ftp://",
    "git@",
    "host",
    "user:pass@",
    "token@",
    ":",
    "/",
    "\n",
    "..",
    "../",
    "./",
    "-",
    "--upload-pack=x",
    "@{",
    "~2",
    "^",
    "refs/heads/",
    "HEAD",
    "main",
    "+a:b",
    ".lock",
    "\\",
    " ",
    "\0",
    "%2e",
    "[::1]",
    "[",
    "]",
    "169.254.169.254",
    "fd00:ec2::254",
    "0xa9fea9fe",
    "2852039166",
    "localhost",
    "?",
    "#",
    "é",
    "\u{202e}",
];

pub(super) const MANIFEST_WORDS: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "<<: *a",
    "? ",
    "|\n",
    ">-\n",
    "{",
    "}",
    "[",
    "]",
    ",",
    "!!str ",
    "!!binary ",
    "null",
    "~",
    "yes",
    "0o17",
    "0x1F",
    ".nan",
    ".inf",
    "1e400",
    "1_000",
    "'",
    "\"",
    "\\x00",
    "%YAML 1.2\n",
    "#",
    "apiVersion",
    "agents.proompteng.ai/v1alpha1",
    "kind",
    "AgentRun",
    "AgentProvider",
    "Agent",
    "ImplementationSpec",
    "List",
    "items",
    "metadata",
    "name",
    "generateName",
    "labels",
    "spec",
    "status",
    "argsTemplate",
    "agentRef",
    "implementation",
    "inline",
    "text",
    "timeoutSeconds",
    "{{ inputs.a }}",
    "\u{feff}",
    "\u{202e}",
    "\t",
];

pub(super) const SCHEMA_WORDS: &[&str] = &[
    "\"$ref\":\"#\"",
    "\"$ref\":\"#/$defs/a\"",
    "\"allOf\":[",
    "\"anyOf\":[",
    "\"items\":{",
    "\"not\":{",
    "\"pattern\":\"(\\\\w{1,9}){1,9}\"",
    "\"patternProperties\":{",
    "\"properties\":{",
    "\"unevaluatedProperties\":{",
    "\"uniqueItems\":true",
    "\"type\":\"string\"",
    "1e999",
    "-0.0",
    "{}",
    "[]",
];

pub(super) const AMOUNT_WORDS: &[&str] = &[
    "1",
    "0",
    "9",
    "-",
    "+",
    ".",
    "e",
    "E3",
    "m",
    "k",
    "Ki",
    "Gi",
    "u",
    "n",
    "9223372036854775807",
    "* ",
    "*/5 ",
    "@every ",
    "@daily",
    "1h30m",
    "0 0 31 2 *",
    "? ",
    "L ",
    "1-5 ",
    "mon-fri",
    "jan",
    ",",
    "/",
    "Europe/",
    "Berlin",
    "UTC",
    "CRON_TZ=",
    " ",
];

pub(super) fn templates() -> Result<Vec<Vec<u8>>> {
    let mut all: Vec<String> = [
        "{{ implementation.text }}", "{% for x in [1, 2, 3] %}{{ x }},{% endfor %}", "{{ inputs | tojson }}",
        "{% set x = payloads.p %}{{ x | upper ~ x }}", "{{ (payloads.p ~ payloads.p) | length }}",
        "{% for line in payloads.p | lines %}{{ loop.index }}{% if not loop.last %};{% endif %}{% endfor %}",
        // Small sources that touch many bytes often.
        "{% for x in payloads.l | lines %}{{ payloads.p | trim('xy ') | length }}{% endfor %}",
        "{% for x in payloads.l | lines %}{% if payloads.p | upper == payloads.p %}{% endif %}{% endfor %}",
        "{% for x in payloads.l | lines %}{{ payloads | tojson | length }}{% endfor %}",
        "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}",
        "{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}{% endfor %}",
        "{% raw %}{{ not a template }}{% endraw %}", "{{ inputs.missing | default('none') }}", "{{ missing }}", "{# nothing #}",
        "{{ 'x' * 1000000 }}", "{{ [payloads.p] * 50 | join }}", "{{ payloads.p == payloads.p ~ '' }}",
    ]
    .map(str::to_owned)
    .into();
    for path in files("examples", "yaml")? {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path)?)?;
        let args = documents.iter().filter_map(|one| one["spec"]["argsTemplate"].as_array()).flatten();
        all.extend(args.filter_map(Value::as_str).map(str::to_owned));
    }
    Ok(all.into_iter().map(String::into_bytes).collect())
}

fn spec() -> Value {
    json!({
        "schemaVersion": "agents.proompteng.ai/runner/v1", "provider": "p", "inputs": {"a": "1"}, "payloads": {"promptJson": "{}"},
        "providerSpec": {
            "binary": "/bin/sh", "argsTemplate": ["-c", "{{ inputs.a }}"], "envTemplate": {"X": "{{ run.name }}"},
            "inputFiles": [{"path": "/workspace/a", "content": "{{ implementation.text }}"}],
        },
        "implementation": {"text": "Look.", "acceptanceCriteria": ["it is there"]},
        "run": {"name": "r", "namespace": "n", "uid": "u", "attempt": 1}, "agent": {"name": "a"},
        "git": {"url": "https://example.com/r.git", "ref": "main", "path": "sub"},
        "outputs": [{"name": "o", "path": "o.md"}], "env": [{"name": "E", "value": "v"}], "secretEnv": ["TOKEN"],
        "limits": {"timeoutSeconds": 5, "graceSeconds": 1, "logBytes": 1024},
        "artifacts": {"statusPath": "/workspace/.agent/status.json", "logPath": "/workspace/.agent/log.txt"},
        "roots": {"workspace": "/tmp/w", "home": "/tmp/h"}, "observability": {"natsUrl": "nats://x"},
    })
}

pub(super) fn runner_specs() -> Result<Vec<Vec<u8>>> {
    let (whole, small) = (spec().to_string(), json!({"provider": "p", "providerSpec": {"binary": "x"}}).to_string());
    let packed = spec_file::encode(whole.as_bytes())?;
    Ok([whole, small, packed].map(String::into_bytes).into())
}

pub(super) fn reports() -> Result<Vec<Vec<u8>>> {
    let least = json!({
        "schemaVersion": "agents.proompteng.ai/report/v1", "status": "succeeded", "provider": "p", "runUid": "u", "attempt": 1,
        "finishedAt": "2026-01-01T00:00:00Z",
    });
    let mut whole = least.clone();
    let more = json!({
        "status": "failed", "planDigest": "sha256:00", "reason": "ProviderExited", "exitCode": 3, "signal": 9,
        "startedAt": "2026-01-01T00:00:00Z", "error": "it broke \u{1f600}", "conversation": "c", "truncated": true,
        "usage": {"inputTokens": 1, "cachedInputTokens": 1, "outputTokens": 2},
        "outputs": [{"name": "o", "path": "o.md", "sizeBytes": 5, "checksum": "sha256:00"}],
        "vcs": {"repository": "https://example.com/r", "branch": "main", "baseCommit": "0", "headCommit": "1", "commits": 2},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        whole[name] = value.clone();
    }
    let mut long = whole.clone();
    long["outputs"] = whole["outputs"][0].as_object().map(|one| vec![one.clone(); 60]).into();
    long["error"] = "\u{1f600}\"".repeat(3000).into();
    Ok([least, whole, long].map(|report| report.to_string().into_bytes()).into())
}

pub(super) fn usage_lines() -> Result<Vec<Vec<u8>>> {
    files("tests/transcripts/codex", "jsonl")?.iter().map(|path| Ok(fs::read(path)?)).collect()
}

pub(super) fn git_coordinates() -> Result<Vec<Vec<u8>>> {
    let all = [
        "https://example.com/owner/repository.git\nmain\nsub/folder",
        "git@example.com:owner/repository.git\nv1.0",
        "ssh://git@example.com:22/x\nrefs/heads/main",
        "file:///srv/git/x\n0123456789abcdef0123456789abcdef01234567",
        "git://example.com/x",
        "https://user:password@example.com/x",
        "ext::sh -c touch%20x",
        "http://[::1]:8080/x\nHEAD\n../..",
        "-oProxyCommand=x\n--upload-pack=x\n/etc",
    ];
    Ok(all.map(|text| text.as_bytes().to_vec()).into())
}

pub(super) fn manifests() -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for path in [files("tests/fixtures", "yaml")?, files("examples", "yaml")?].concat() {
        let bytes = fs::read(&path)?;
        // Those of hundreds of kilobytes lie just beyond a bound; changing them finds nothing that small ones do not.
        if bytes.len() < 16 * 1024 {
            all.push(bytes);
        }
    }
    let run =
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {name: r}\nspec: {agentRef: {name: a}}\n";
    all.push(serde_json::to_vec(&serde_saphyr::from_str::<Value>(run)?)?);
    all.push(b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n".to_vec());
    all.push([b"[".repeat(5_000), b"]".repeat(5_000)].concat());
    Ok(all)
}

pub(super) fn names() -> Result<Vec<Vec<u8>>> {
    let long = format!("{}\nuid", "a.b-".repeat(63));
    Ok(["review-note\n7c9f", "9starts-with-a-digit\nu", long.as_str(), "\n"]
        .map(|text| text.as_bytes().to_vec())
        .into())
}

pub(super) fn schemas() -> Result<Vec<Vec<u8>>> {
    let all = [
        json!([{"type": "object", "required": ["a"], "properties": {"a": {"pattern": "^v[0-9]+$"}}}, {"a": "v1"}]),
        json!([{"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"type": "integer"}}, "$ref": "#/$defs/a"}, [1, 2]]),
        json!([{"anyOf": [{"const": 1}, {"enum": ["x", null]}, {"not": {"multipleOf": 0.1}}]}, 1e300]),
        json!([{"patternProperties": {".": {"maxLength": 3}}, "additionalProperties": false}, {"é": "long"}]),
        json!([{"if": {"minItems": 1}, "then": {"uniqueItems": true}, "else": {"prefixItems": [true]}}, [1, 1]]),
    ];
    Ok(all.iter().map(|case| case.to_string().into_bytes()).collect())
}

pub(super) fn amounts() -> Result<Vec<Vec<u8>>> {
    let all = [
        "500m",
        "1.5Gi",
        "1e3",
        "-2",
        "9223372036854775807",
        "*/15 8-18 * * mon-fri",
        "0 0 31 2 *",
        "0 0 29 2 *",
        "@every 1h30m",
        "@daily",
        "Europe/Berlin",
        "UTC",
    ];
    Ok(all.map(|text| text.as_bytes().to_vec()).into())
}

/// The files with this extension below a folder of the workspace, in the order of their names.
fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
    fn below(folder: &Path, extension: &str, all: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                below(&path, extension, all)?;
            } else if path.extension().is_some_and(|found| found == extension) {
                all.push(path);
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    below(&workspace().join(folder), extension, &mut all)?;
    all.sort();
    Ok(all)
}
