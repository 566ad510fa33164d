use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

fn render(source: &str) -> Result<String, String> {
    let scope = serde_json::json!({"inputs": {"a": "x", "empty": ""}});
    Renderer::new(&scope).render("argsTemplate[0]", source).map_err(|error| error.to_string())
}

#[test]
fn an_undefined_name_is_an_error_with_template_line_and_column() {
    insta::assert_snapshot!(render("one\n  {{ inputs.nope }}").unwrap_err(), @"argsTemplate[0], line 2, column 6: `inputs.nope` is not defined");
    insta::assert_snapshot!(render("{{ secrets }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `secrets` is not defined");
    insta::assert_snapshot!(render("{{ inputs.a ").unwrap_err(), @"argsTemplate[0], line 1, column 11: syntax error: unexpected end of input, expected end of variable block");
    insta::assert_snapshot!(render("{{ env.HOME }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `env.HOME` is not defined");
    insta::assert_snapshot!(render("{{ inputs }}").unwrap_err(), @"argsTemplate[0], line 1, column 4: `inputs` is not text; print lists and maps through `tojson`");
    assert!(render("{% include 'x' %}").unwrap_err().contains("syntax error"));
}

#[test]
fn defaults_apply() {
    assert_eq!(render("{{ inputs.nope | default('d') }}").unwrap(), "d");
    assert_eq!(render("{{ inputs.empty | default('d') }}").unwrap(), "d");
    assert_eq!(render("{{ inputs.a == 'x' }} {{ 1 }}\n").unwrap(), "true 1\n");
    assert_eq!(render("{{ inputs.a | tojson }}").unwrap(), "\"x\"");
}

#[test]
fn a_template_is_read_without_its_names() {
    assert_eq!(parse("t", "{{ whatever.it.is }}", &Budget::default()), Ok(()));
    assert_eq!(
        parse("t", "{{ a ", &Budget::default()).unwrap_err().to_string(),
        render("{{ a ").unwrap_err().replace("argsTemplate[0]", "t")
    );
}

#[test]
fn a_cycle_of_nothing_is_an_error() {
    assert_eq!(render("{% for i in 'abc' %}{{ loop.cycle('x', 'y') }}{% endfor %}").unwrap(), "xyx");
    assert!(render("{% for i in 'abc' %}{{ loop.cycle() }}{% endfor %}").unwrap_err().contains("argument"));
}

#[test]
fn work_is_bounded() {
    let long = "x".repeat(100_000);
    let many = format!("{{% for a in [1,2,3,4,5,6,7,8,9,10,11] %}}{long}{{% endfor %}}");
    assert!(render(&many).unwrap_err().contains("more than"));
    let nested = "{% for a in 'xxxxxxxxxxxxxxxxxxxx' %}".repeat(4) + &"{% endfor %}".repeat(4);
    assert!(render(&nested).unwrap_err().contains("costs too much"));
}

#[test]
fn a_filter_makes_no_more_than_a_template_may() {
    let scope = serde_json::json!({"t": "\"<x\n".repeat(20_000), "list": vec!["a"; 2000]});
    let render = |source: &str| Renderer::new(&scope).render("t", source).map(|text| text.len());
    for source in [
        "{{ t | join(t) }}",
        "{{ list | join(t) }}",
        "{{ list | join(d=t) }}",
        "{{ t | tojson | tojson | tojson | tojson | tojson | tojson }}",
        "{{ [t, t, t, t, t, t] | tojson }}",
        "{{ t | tojson(999999999) }}",
        "{{ t | tojson(indent=999999999) }}",
        "{{ (t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t ~ t) | upper }}",
        "{{ (t ~ t ~ t ~ t) | lines | length }}",
    ] {
        let error = render(source).unwrap_err().to_string();
        assert!(error.contains(filters::TOO_LARGE), "{source}: {error}");
    }
    assert_eq!(render("{{ list | join(', ') }}"), Ok(3 * 2000 - 2));
    assert_eq!(render("{{ list | tojson | length }}").map(|_| ()), Ok(()));
    assert_eq!(render("{{ t | lines | length }}"), Ok("20000".len()));
    let scope = serde_json::json!({"a": {"b": ["c"]}});
    let json = Renderer::new(&scope).render("t", "{{ a | tojson(indent=true) }} {{ ' x ' | trim | upper }}");
    assert_eq!(json.unwrap(), "{\n  \"b\": [\n    \"c\"\n  ]\n} X");
}

proptest! {
    #[test]
    fn no_source_makes_it_panic(source in "\\PC{0,200}") {
        let _ = render(&source);
    }
}

/// As the engine does it by itself, without a price.
fn plainly(scope: &Value, source: &str) -> Result<String, ErrorKind> {
    let mut environment = environment(&Arc::new(Budget::default()));
    environment.set_syntax(metered::syntax());
    environment.template_from_str(source).and_then(|template| template.render(scope)).map_err(|error| error.kind())
}

fn expressions() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "1",
        "-2",
        "0",
        "2.5",
        "true",
        "none",
        "''",
        "'a'",
        "'ab'",
        "'b'",
        "[]",
        "[1, 'a']",
        "(1, 2)",
        "()",
        "{}",
        "{'a': 1}",
        "a",
        "text",
        "list",
        "map",
        "nope",
        "map.b",
        "map.nope",
        "('x' if false)",
        "loop",
        "loop.index",
        "9223372036854775807",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(3, 12, 3, |inner| {
        let operators =
            vec!["~", "+", "-", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"];
        let filters = vec![
            "upper",
            "lower",
            "trim",
            "length",
            "first",
            "last",
            "join",
            "join('-')",
            "lines",
            "tojson",
            "default('d')",
            "d",
        ];
        prop_oneof![
            (inner.clone(), select(operators.clone()), inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), select(operators.clone()), inner.clone(), select(operators), inner.clone())
                .prop_map(|(a, op, b, other, c)| format!("({a} {op} {b} {other} {c})")),
            (inner.clone(), select(filters)).prop_map(|(a, filter)| format!("({a} | {filter})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), -3..4_i8, -3..4_i8).prop_map(|(a, from, to)| format!("({a})[{from}:{to}]")),
            inner.clone().prop_map(|a| format!("({a})[1:]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{'k': {a}, {b}: 'v'}}")),
            vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(", "))),
            inner.clone().prop_map(|a| format!("({a} is defined)")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("loop.cycle({a}, {b})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Paying changes nothing: every expression is what the engine makes of it by itself.
    #[test]
    fn what_is_paid_is_what_the_engine_does(expression in expressions(), other in expressions()) {
        let scope = serde_json::json!({
            "a": "x", "text": "one\ntwo é", "list": ["a", "b", 3], "map": {"a": [1, 2], "b": "ab"},
        });
        let scope = Value::from(minijinja::value::Serde(&scope));
        for source in [
            format!("{{% for i in [1, 2] %}}{{{{ ({expression}) | tojson }}}};{{% endfor %}}"),
            format!("{{{{ {expression} }}}}"),
            format!("{{% for x in {expression} if x != ({other}) %}}{{{{ x }}}},{{{{ loop.last }}}}{{% else %}}none{{% endfor %}}"),
            format!("{{% set p, q = {expression} %}}{{{{ q ~ p }}}}{{% if {other} %}}yes{{% endif %}}"),
        ] {
            let renderer = Renderer::over(scope.clone());
            match renderer.try_run(&source) {
                // The guard is stricter than the engine.
                None => {}
                Some(paid) => prop_assert_eq!(paid, plainly(&scope, &source), "{}", source),
            }
        }
    }
}

#[test]
fn every_sum_of_two_values_is_the_engines() {
    // What stands in the template itself is added up while it is compiled.
    let values = serde_json::json!({
        "t": true, "f": false, "n": null, "zero": 0, "two": 2, "less": -3, "half": 2.5, "most": i64::MAX, "text": "a",
        "list": [1], "map": {"a": 1},
    });
    let names: Vec<_> = values.as_object().unwrap().keys().collect();
    let scope = Value::from(minijinja::value::Serde(&values));
    // A sum and a part of lists are no lists for the engine when they are compared, and can be cut and looked into.
    let of_two = |a: &str, b: &str| {
        [
            format!("{{{{ {a} + {b} }}}}"),
            format!("{{{{ {a} + {b} < {a} }}}}{{{{ {a} + {b} > {b} }}}}{{{{ {a} + {b} == {a} }}}}"),
            format!("{{{{ {a}[1:] < {b} }}}}{{{{ {a}[:1] <= {b} }}}}{{{{ {a}[:9] >= {b}[:9] }}}}"),
            format!(
                "{{{{ ({a} + {b})[0] }}}}{{{{ ({a} + {b})[-1] }}}}{{{{ ({a} + {b})[7] }}}}{{{{ ({a} + {b})[1:] | last }}}}"
            ),
        ]
    };
    for source in names.iter().flat_map(|a| names.iter().flat_map(move |b| of_two(a, b))) {
        if let Some(paid) = Renderer::over(scope.clone()).try_run(&source) {
            assert_eq!(paid, plainly(&scope, &source), "{source}");
        }
    }
}

impl Renderer {
    fn try_run(&self, source: &str) -> Option<Result<String, ErrorKind>> {
        let program = compile("t", source, &self.budget).ok()?;
        Some(self.run(&program).map_err(|error| error.kind()))
    }
}
