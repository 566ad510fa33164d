//! What rendering may cost: everything is paid in bytes from one budget per plan, so the worst plan that is admitted is
//! cheap, and the same plan is always admitted or always refused. Costs are counted here, never timed.

#[path = "../benches/adversary/mod.rs"]
mod adversary;

use agents_core::{
    plan::{RunnerSpec, render_provider},
    status::Reason,
    template::{MAX_COST, TemplateError},
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

const KIB: usize = 1024;
/// Sources of arbitrary bytes that are tried.
const ARBITRARY: u32 = 1500;

fn spec(payloads: &Value, provider: &Value) -> RunnerSpec {
    let mut provider = provider.clone();
    provider["binary"] = json!("sh");
    let spec = json!({
        "provider": "p", "payloads": payloads, "inputs": {"a": "x", "branch": "main"}, "providerSpec": provider,
        "implementation": {"text": "Do it.", "labels": ["one", "two"]},
    });
    serde_json::from_value(spec).expect("a spec")
}

/// What rendering costs, or everything that is wrong.
fn cost(spec: &RunnerSpec) -> Result<u64, Vec<TemplateError>> {
    render_provider(spec.provider_spec.as_ref().expect("a provider"), spec).map(|rendered| rendered.cost)
}

fn cost_of(payloads: &Value, args: &[String]) -> Result<u64, Vec<TemplateError>> {
    cost(&spec(payloads, &json!({"argsTemplate": args})))
}

fn is_limit(errors: &[TemplateError]) -> bool {
    errors.len() == 1 && errors[0].reason == Reason::TemplateLimit
}

fn long(text: &str) -> String {
    text.repeat(127 * KIB / text.len())
}

#[test]
fn every_known_way_to_be_expensive_has_an_end() {
    for kind in adversary::kinds() {
        // Whoever repeats it as often as he can is refused for what it costs, or it is cheap.
        if let Err(problem) = kind.repeated(kind.most).decide() {
            assert!(problem.contains("costs too much") || problem.contains("render"), "{}: {problem}", kind.name);
        }
        kind.repeated(1).decide().unwrap_or_else(|problem| panic!("{}, once: {problem}", kind.name));
    }
}

#[test]
fn what_cost_minutes_is_refused_for_its_cost() {
    // 43 × 44 times over 127 KiB: 1 to 180 s of CPU each where instructions are counted and bytes are not.
    let often = |what: &str| {
        let (y, z) = ("y".repeat(43), "z".repeat(44));
        format!("{{% for i in '{y}' %}}{{% for j in '{z}' %}}{what}{{% endfor %}}{{% endfor %}}")
    };
    let payloads = json!({"t": long("ab <cd\n"), "u": format!("{}!", long("ab <cd\n"))});
    for what in [
        "{% if payloads.t | trim | length == 1 %}{% endif %}",
        "{% if (payloads.t | upper) == '' %}{% endif %}",
        "{% if (payloads.t | tojson) == '' %}{% endif %}",
        "{% if (payloads.t | lines | join(', ')) == '' %}{% endif %}",
        "{% if (payloads.t ~ 'x') == '' %}{% endif %}",
        "{% if payloads.t < payloads.u %}{% endif %}",
        "{% if payloads.t in payloads.u %}{% endif %}",
        "{% if payloads.t[:-1] %}{% endif %}",
        "{% for c in payloads.t %}{% endfor %}",
        "{{ payloads.t }}",
    ] {
        let errors = cost_of(&payloads, &["fine".to_owned(), often(what)]).unwrap_err();
        assert!(is_limit(&errors), "{what}: {errors:?}");
        assert_eq!(errors[0].template, "argsTemplate[1]", "{what}");
    }
    let chars = format!("{{% if payloads.t | trim('{}') %}}{{% endif %}}", "x".repeat(255));
    let errors = cost_of(&payloads, &[often(&chars)]).unwrap_err();
    assert_eq!((errors.len(), errors[0].reason), (1, Reason::InvalidSpec));
    assert_eq!(
        errors[0].to_string(),
        "argsTemplate[0], line 1, column 141: `trim` takes off white space only: it has no argument"
    );
}

#[test]
fn all_templates_of_a_plan_share_one_budget() {
    let payloads = json!({"t": long("ab cd\n")});
    let one = "{% if (payloads.t | upper) == '' %}{% endif %}".to_owned();
    let alone = cost_of(&payloads, std::slice::from_ref(&one)).unwrap();
    let room = usize::try_from(MAX_COST / alone).unwrap();
    assert!(room < 100, "{alone}");
    assert_eq!(cost_of(&payloads, &vec![one.clone(); room]).unwrap(), alone * u64::try_from(room).unwrap());
    // One more is too much, wherever it stands; what comes after it is not told.
    let errors = cost_of(&payloads, &vec![one.clone(); room + 5]).unwrap_err();
    assert!(is_limit(&errors), "{errors:?}");
    assert_eq!(errors[0].template, format!("argsTemplate[{room}]"));
    let mixed = json!({
        "argsTemplate": vec![&one; room - 1], "envTemplate": {"A": one, "B": one},
        "inputFiles": [{"path": "/workspace/f", "content": one}],
    });
    let errors = cost(&spec(&payloads, &mixed)).unwrap_err();
    assert!(is_limit(&errors), "{errors:?}");
    assert_eq!(errors[0].template, "envTemplate.B");
    assert_eq!(errors[0].problem, format!("costs too much: all templates together may touch {MAX_COST} bytes"));
}

#[test]
fn what_people_write_is_admitted() {
    let issue = long("A line of an issue, with `code`, \"quotes\" and é.\n");
    let lines = "a line of text that is not short\n".repeat(3000);
    let payloads =
        json!({"issue": issue, "lines": lines, "event": long("{\"a\": [1, 2, \"<b>\"]}"), "more": long("x, ")});
    let mut args: Vec<String> = (0..20)
        .map(|n| {
            format!("--flag-{n}={{{{ inputs.a | default('x') | upper | trim }}}}/{{{{ inputs.branch ~ '-{n}' }}}}")
        })
        .collect();
    args.push(
        "{% if inputs.branch in ['main', 'master'] and not inputs.nope | default('') %}--main{% endif %}".to_owned(),
    );
    args.extend(vec!["{{ payloads.issue }}".to_owned(); 20]);
    let files = [
        "{{ payloads.issue }}\n{{ payloads | tojson | length }}",
        "{% for line in payloads.lines | lines %}{{ loop.index }}: {{ line | trim }}{{ '\n' if not loop.last }}{% endfor %}",
        "{% set title = payloads.issue | lines | first %}# {{ title | upper }}\n{{ payloads.event | tojson(indent=2) }}\n{% for label in implementation.labels if label != 'x' %}- {{ label }}\n{% endfor %}",
    ];
    let files: Vec<Value> =
        files.iter().enumerate().map(|(n, text)| json!({"path": format!("/workspace/{n}"), "content": text})).collect();
    let spec = spec(&payloads, &json!({"argsTemplate": args, "inputFiles": files}));
    let cost = cost(&spec).unwrap();
    assert!(cost < MAX_COST * 2 / 3, "{cost}");
    // As many templates as there may be, each with a few tags, and a long document among them.
    let few =
        "--{{ inputs.a | default('x') }}={{ inputs.branch }}{% if inputs.a == 'y' %}!{% endif %} plain text".to_owned();
    let text = "Some words of a prompt, {{ inputs.a }}, and {more} words.\n".repeat(499);
    let env: serde_json::Map<String, Value> = (0..100).map(|n| (format!("E{n}"), json!(few))).collect();
    let files: Vec<Value> = (0..64)
        .map(|n| json!({"path": format!("/workspace/{n}"), "content": if n < 20 { &text } else { &few }}))
        .collect();
    let provider = json!({"argsTemplate": vec![&few; 256], "envTemplate": env, "inputFiles": files});
    let cost = self::cost(&self::spec(&payloads, &provider)).unwrap();
    assert!(cost < MAX_COST * 3 / 4, "{cost}");
}

/// Something a template does with a long text: what it says, and how many bytes of the text it cannot do without.
const WORK: &[(&str, u64)] = &[
    ("{% if t | upper == '' %}{% endif %}", 1),
    ("{% if (t | tojson | length) == 1 %}{% endif %}", 1),
    ("{% set v = t ~ t %}", 2),
    ("{% set v = t + u %}", 2),
    ("{% if t < u %}{% endif %}", 1),
    ("{% if t == w %}{% endif %}", 1),
    ("{% if t == w == t %}{% endif %}", 2),
    ("{% if '!' in t %}{% endif %}", 1),
    ("{% if '!' not in t %}{% endif %}", 1),
    ("{% if t in [w, u, 'x'] %}{% endif %}", 1),
    ("{% set v = t[-3:] %}", 1),
    ("{% set v = t | lines | length %}", 1),
    ("{% set v = t | lines | join('; ') %}", 2),
    ("{% if [t] == [w] %}{% endif %}", 1),
    ("{% if {'a': t} == {'a': w} %}{% endif %}", 1),
    ("{% set v = {t: 1, w: 2} %}", 1),
    ("{% if loop.changed(t, i) %}{% endif %}", 0),
    ("{% if t | length %}{% endif %}", 1),
    ("{% set v = [t, i] ~ '' %}", 1),
    ("{{ inputs.a }}{{ i }}", 0),
    ("{% for line in t | lines %}{% if line == 'x' %}{% endif %}{% endfor %}", 1),
];

fn program() -> impl Strategy<Value = (usize, Vec<&'static (&'static str, u64)>, usize)> {
    let sizes = select(vec![0, 1, 100, 5 * KIB, 60 * KIB, 127 * KIB]);
    let times = select(vec![1, 2, 10, 60, 300, 1500]);
    (sizes, vec(select(WORK.iter().collect::<Vec<_>>()), 1..5), times)
}

fn looped(work: &[&(&str, u64)], times: usize) -> String {
    let body: String = work.iter().map(|(what, _)| *what).collect();
    let head = "{% set t = payloads.t %}{% set u = payloads.u %}{% set w = payloads.w %}";
    format!("{head}{{% for i in payloads.n[:{times}] %}}{body}{{% endfor %}}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_price_covers_what_is_touched(program in program(), more in select(WORK.iter().collect::<Vec<_>>())) {
        let (size, work, times) = program;
        let t = "ab cd é\n".chars().cycle().take(size).collect::<String>();
        let payloads = json!({"t": t, "u": format!("{t}?"), "w": t, "n": "n".repeat(2000)});
        let source = looped(&work, times);
        let priced = cost_of(&payloads, std::slice::from_ref(&source));
        // The same each time, whatever else was rendered before.
        prop_assert_eq!(&priced, &cost_of(&payloads, std::slice::from_ref(&source)));
        let touched: u64 = work.iter().map(|(_, bytes)| bytes).sum::<u64>() * u64::try_from(t.len() * times).unwrap();
        match &priced {
            Ok(cost) => {
                prop_assert!(*cost <= MAX_COST);
                prop_assert!(touched <= *cost, "{} bytes are touched for {}", touched, cost);
            }
            Err(errors) => prop_assert!(is_limit(errors), "{:?}", errors),
        }
        if touched > MAX_COST {
            prop_assert!(priced.is_err());
        }
        // More work, more turns, another template: never cheaper.
        let mut longer = work.clone();
        longer.push(more);
        let dearer = [
            cost_of(&payloads, &[looped(&longer, times)]),
            cost_of(&payloads, &[looped(&work, times + 1)]),
            cost_of(&payloads, &[source.clone(), "{{ inputs.a }}".to_owned()]),
        ];
        for other in dearer {
            match (&priced, other) {
                (Ok(cost), Ok(other)) => prop_assert!(other > *cost),
                (Err(_), Ok(_)) => prop_assert!(false, "what was too much became cheaper"),
                (_, Err(errors)) => prop_assert!(is_limit(&errors), "{:?}", errors),
            }
        }
    }
}

/// What must hold of any source: it renders, within the budget and as long as a text may be, or says what is wrong; and
/// does the same again.
fn holds(bytes: &[u8]) {
    let source = String::from_utf8_lossy(bytes).into_owned();
    let payloads = json!({"t": "ab <cd>\n".repeat(2 * KIB), "n": "i".repeat(500)});
    let spec = spec(&payloads, &json!({"argsTemplate": [source]}));
    let render = || render_provider(spec.provider_spec.as_ref().expect("a provider"), &spec);
    let first = render();
    match &first {
        Ok(rendered) => assert!(rendered.cost <= MAX_COST && rendered.args[0].len() <= 1024 * KIB),
        Err(errors) => assert!(errors.len() == 1 && !errors[0].problem.is_empty()),
    }
    assert_eq!(first, render());
}

/// Bytes that are often a template.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{%-",
        "-%}",
        "{#",
        "#}",
        " ",
        "\n",
        "if",
        "else",
        "elif",
        "endif",
        "for",
        "in",
        "endfor",
        "set",
        "with",
        "endwith",
        "raw",
        "endraw",
        "payloads",
        ".t",
        ".n",
        "inputs",
        ".a",
        "implementation.labels",
        "loop",
        ".cycle(",
        ".changed(",
        ".nextitem",
        ".index",
        "x",
        "=",
        "==",
        "<",
        "!=",
        "~",
        "+",
        "-",
        "*",
        "/",
        "%",
        "|",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "'a'",
        "\"b\"",
        "'",
        "1",
        "0",
        "-1",
        "1e308",
        "99999999999999999999",
        "upper",
        "lower",
        "tojson",
        "trim",
        "join",
        "lines",
        "length",
        "first",
        "last",
        "default",
        "is defined",
        "is not undefined",
        "not",
        "and",
        "or",
        "true",
        "none",
        "autoescape",
        "endautoescape",
        "do",
        "{% for i in payloads.n %}",
        "{% for c in payloads.t %}",
        "{% endfor %}",
        "{{ payloads.t }}",
        "{% set x = payloads.t ~ x %}",
        "é",
        "\u{202e}",
        "\0",
    ];
    let piece = prop_oneof![
        8 => select(pieces.map(|piece| piece.as_bytes().to_vec()).to_vec()),
        1 => vec(any::<u8>(), 0..6),
    ];
    prop_oneof![3 => vec(piece, 0..40).prop_map(|pieces| pieces.concat()), 1 => vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ARBITRARY, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_cost_more(bytes in bytes()) {
        holds(&bytes);
    }
}
