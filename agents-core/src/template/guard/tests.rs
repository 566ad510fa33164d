use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
};

use super::*;
use crate::template::{Budget, Renderer, parse};

const SOURCE_BYTES: usize = 64 * 1024;

/// Compiles and renders on a stack that is half of what a thread has, and says how it went.
fn render(source: &str) -> Result<String, String> {
    let source = source.to_owned();
    let thread = thread::Builder::new().stack_size(1024 * 1024).spawn(move || {
        let scope = serde_json::json!({"t": "x".repeat(128 * 1024), "list": ["a", "b"], "inputs": {"a": "x"}});
        Renderer::new(&scope).render("t", &source).map_err(|error| error.to_string())
    });
    thread.unwrap().join().unwrap()
}

fn numbered(count: usize, part: impl Fn(usize, &mut String) -> std::fmt::Result) -> String {
    let mut all = String::new();
    (0..count).try_for_each(|n| part(n, &mut all)).unwrap();
    all
}

/// As much of `middle` as a template can have.
fn full(before: &str, middle: &str, after: &str) -> String {
    let times = (SOURCE_BYTES - before.len() - after.len()) / middle.len();
    format!("{before}{}{after}", middle.repeat(times))
}

#[test]
fn what_takes_the_memory_or_the_stack_is_refused_at_once() {
    for (source, problem) in [
        ("{{ 'x'*100000000 ~ 'x'*100000000 ~ 'x'*100000000 }}".to_owned(), "column 7: `*` and `**`"),
        ("{{ 2 ** 3 }}".to_owned(), "`*` and `**`"),
        (full("{{ ", "-", "1 }}"), "a tag has more than"),
        (full("{{ a", ".b", " }}"), "a tag has more than"),
        (full("{{ 1", "+1", " }}"), "a tag has more than"),
        (full("{{ t", "|d", " }}"), "a tag has more than"),
        (full("{{ t", "[0]", " }}"), "a tag has more than"),
        (full("{{ t", "()", " }}"), "a tag has more than"),
        (full("{{ ", "not ", "t }}"), "a tag has more than"),
        (full("{{ ", "[", ""), "a tag has more than"),
        (full("{{ 'x", "x", "' }}"), "2048 bytes"),
        (full("{{ 'x", "x", ""), "2048 bytes"),
        (format!("{{{{ {}1 }}}}", "-".repeat(1000)), "200 names"),
        (format!("{{{{ a{} }}}}", ".b".repeat(900)), "200 names"),
        (format!("{{{{ {}t }}}}", "not ".repeat(400)), "200 names"),
        (format!("{{{{ {}t{} }}}}", "(".repeat(17), ")".repeat(17)), "16 brackets"),
        (full("{% if t %}", "{% elif t %}", "{% endif %}"), "50 `elif`"),
        (full("", "{% if t %}", ""), "32 blocks"),
        (full("", "{{ t }}", ""), "500 tags"),
        (full("{% set a = t %}", "{% set a = a ~ a %}", "{{ a }}"), "one value of more than 20"),
        (full("{% set a = 'x' %}", "{% set a = a + a %}", "{{ a }}"), "one value of more than 20"),
        (full("{% set a = t %}", "{% set a = [a, a] %}", "{{ a | tojson }}"), "one value of more than 20"),
        (full("{% set a = t %}", "{% set a = ('', (a, '')) ~ '' %}", ""), "one value of more than 20"),
        (full("{% set a = t %}", "{% set a = a, a %}", ""), "one value of more than 20"),
        (full("{% set a = t %}", "{% set a = [a] ~ '' %}", ""), "one value of more than 20"),
        (full("{% set a = t %}", "{% set a = a, '' %}{% set a = a ~ '' %}", ""), "one value of more than 20"),
        (full("", "{% for a in [t ~ t] %}{% for t in [a ~ a] %}", ""), "one value of more than 20"),
        ("{% with a = t ~ t ~ t, b = a ~ a ~ a, c = b ~ b ~ b %}{% endwith %}".to_owned(), "one value of more than 20"),
        ("{% for x in list %}{% set a = t ~ t ~ t ~ t %}".repeat(12), "more than 40 values"),
        (numbered(30, |n, all| write!(all, "{{% set a{n} = t ~ t ~ t %}}")), "more than 40 values"),
        (full("{% set else = t %}", "{% set else = else ~ else %}", ""), "`else` is no name"),
        (full("{% for (in) in [t] %}", "{% set in = in ~ in %}", ""), "`in` is no name"),
        (full("{% set defined = t %}", "{% set defined = defined ~ defined %}", ""), "one value of more than 20"),
        ("{% set a %}{{ t }}{% endset %}".to_owned(), "`set` without `=`"),
        ("{% set a | upper %}{{ t }}{% endset %}".to_owned(), "`set` without `=`"),
        ("{%- filter upper %}{{ t }}{% endfilter %}".to_owned(), "`filter` block"),
        ("{% for x in list recursive %}{{ loop(list) }}{% endfor %}".to_owned(), "`recursive`"),
        ("{{ t[::-1] }}".to_owned(), "slice with a step"),
    ] {
        let error = render(&source).unwrap_err();
        assert!(error.contains(problem), "{}: {error}", &source[..source.len().min(60)]);
    }
}

#[test]
fn the_largest_that_is_let_through_needs_little_stack() {
    for source in [
        format!("{{{{ {}1 }}}}", "-".repeat(190)),
        format!("{{{{ {}t }}}}", "not ".repeat(190)),
        format!("{{{{ 1{} }}}}", "+1".repeat(95)),
        format!("{{{{ t{} }}}}", "|d".repeat(15)),
        format!("{{{{ t{} }}}}", ".b".repeat(95)),
        format!("{{{{ {}t{} }}}}", "(".repeat(4), ")".repeat(4)),
        format!("{{{{ t{}0{} }}}}", "[t".repeat(14), "]".repeat(14)),
        format!("{{{{ {}1 }}}}", "1 if t else ".repeat(45)),
        "{% if t %}".repeat(32) + &"{% elif t %}".repeat(50) + &"{% endif %}".repeat(32),
        "{% for x in list %}".repeat(20) + &"{% endfor %}".repeat(20),
    ] {
        if let Err(error) = render(&source) {
            // Only what it does is too much, if anything.
            assert!(!error.contains("more than") || error.contains("costs too much"), "{source}: {error}");
        }
    }
}

#[test]
fn a_variable_holds_no_more_than_is_said() {
    let of = |values: usize| format!("{{% set a = inputs.a{} %}}{{{{ a == '' }}}}", " ~ inputs.a".repeat(values - 1));
    assert_eq!(render(&of(MAX_VALUES)).unwrap(), "false");
    assert!(render(&of(MAX_VALUES + 1)).is_err());
}

#[test]
fn what_people_write_is_let_through() {
    for source in [
        "",
        "plain { text } with } %} and }} {",
        "{# {{ 'x' * 9 }} #}{% raw %}{{ 'x' * 9 }}{%- endraw -%}",
        "{{ 'a * b ** c' }} {{ \"it's \\\" * \" }}",
        "{%- if t == 'x' or t == 'y' or t == 'z' and not (inputs.a or t) -%}a{%- elif t -%}b{%- else -%}c{%- endif -%}",
        "{{ 'x' if inputs.b is not defined and t is defined else 'y' }}",
        "{% if t in ['a', 'b', 'c'] %}{{ {'a': [1, 2], 'b': {'c': 3}} | tojson }}{% endif %}",
        "{% for x in list %}{{ loop.index }}: {{ x | upper | trim }}{{ ', ' if not loop.last }}{% endfor %}",
        "{% for x in list if x != 'a' %}{% set y = x ~ '-' ~ loop.index %}{{ y }}{% else %}none{% endfor %}",
        "{% set a = inputs.a | default('x') | trim %}{% set b = 'prefix/' ~ a %}{{ b }}{% set a = b ~ '/' ~ a %}{{ a }}",
        "{% with a = inputs.a, b = 'c' %}{{ a ~ b }}{% endwith %}{{ t[0:5] }}{{ list[0] }}{{ inputs['a'] }}",
        "{{ inputs['a'] ~ inputs['a'] ~ inputs['a'] ~ inputs['a'] ~ inputs['a'] ~ inputs['a'] }}",
        "{{ (((((t[0:2] ~ inputs.a)))) | upper) ~ (inputs.a | default('x')) }}",
        "{{\n  inputs.a\n  | default('x', )\n  | tojson(indent=2)\n}}",
        &("{% set f = '' %}".to_owned()
            + &"{% if inputs.a %}{% set f = f ~ ' --flag' %}{% endif %}".repeat(100)
            + "{{ f }}"),
        &("{% set f = '' %}".to_owned() + &"{% set f = f ~ ' --flag=' ~ inputs.a %}".repeat(15) + "{{ f }}"),
        &numbered(100, |n, all| write!(all, "{{% set a{n} = inputs.a %}}{{{{ a{n} }}}}")),
    ] {
        assert_eq!(render(source).map(drop), Ok(()), "{source}");
    }
}

#[test]
fn every_template_of_the_examples_is_let_through() {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["examples", "tests/fixtures"] {
        files(&root.join(folder), &mut found);
    }
    found.retain(|path| !path.components().any(|part| part.as_os_str() == "invalid"));
    assert!(found.len() > 10);
    for path in found {
        assert_eq!(check("t", &fs::read_to_string(&path).unwrap(), &Budget::default()), Ok(()), "{}", path.display());
    }
}

#[test]
fn a_refusal_names_template_line_and_column() {
    assert_eq!(
        parse("argsTemplate[1]", "one\n  {{ t * 2 }}", &Budget::default()).unwrap_err().to_string(),
        "argsTemplate[1], line 2, column 8: `*` and `**` are not available"
    );
}
