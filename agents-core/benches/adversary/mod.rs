//! Templates that cost as much as they can: what one of each kind does can be repeated to the edge of the budget.

use std::sync::Arc;

use agents_core::{
    api::{Agent, AgentProvider, AgentRun, Kind as ApiKind, Meta, Resource},
    look::Found,
    plan::{Defaults, PlanError, plan},
    resolve::{References, resolve},
};
use serde_json::{Map, Value, json};

const KIB: usize = 1024;
const SOURCE: usize = 64 * KIB;

/// One way to make a rendering expensive.
pub(crate) struct Kind {
    /// What it does.
    pub(crate) name: &'static str,
    /// How often it can be repeated at most.
    pub(crate) most: usize,
    make: Box<dyn Fn(usize) -> Case + Send + Sync>,
}

impl Kind {
    /// A run and its provider that do it so many times.
    pub(crate) fn repeated(&self, times: usize) -> Case {
        (self.make)(times)
    }
}

/// A run with all that it refers to.
pub(crate) struct Case {
    run: Resource<AgentRun>,
    references: References,
}

impl Case {
    /// Does of a decision what costs: looks at everything and plans. The error says what was too much.
    pub(crate) fn decide(&self) -> Result<usize, String> {
        let resolved = resolve(&self.run, &self.references).map_err(|unresolved| format!("{unresolved:?}"))?;
        let defaults = Defaults {
            image: String::new(),
            runner_image: String::new(),
            service_account: String::new(),
            grace_seconds: 30,
            bounds: agents_core::plan::Bounds::none(),
        };
        match plan(&resolved, &defaults) {
            Ok(plan) => Ok(plan.digest.len()),
            // Found once all templates are paid: it costs what a plan costs.
            Err(PlanError::Unstartable(faults)) => Ok(faults.len()),
            Err(error @ PlanError::Templates(_)) => Err(error.to_string()),
        }
    }
}

fn resource<K: ApiKind>(name: &str, spec: Value) -> Resource<K> {
    let metadata = Meta { name: name.to_owned(), namespace: "n".to_owned(), ..Meta::default() };
    Resource { metadata, spec: serde_json::from_value(spec).expect("a spec"), status: None }
}

fn spec(payloads: &[(&str, String)], args: &[String]) -> Case {
    let payloads: Map<String, Value> =
        payloads.iter().map(|(name, text)| ((*name).to_owned(), Value::from(text.as_str()))).collect();
    let run = json!({
        "agentRef": {"name": "a"},
        "parameters": {"a": "x"},
        "payloads": payloads,
        "implementation": {"inline": {"text": "do it", "labels": ["one", "two", "three"]}},
    });
    let provider = resource::<AgentProvider>("p", json!({"binary": "sh", "argsTemplate": args}));
    Case {
        run: resource("r", run),
        references: References {
            agent: Found::Object(Arc::new(resource::<Agent>("a", json!({"providerRef": {"name": "p"}})))),
            provider: Found::Object(Arc::new(provider)),
            implementation: Found::Absent,
        },
    }
}

fn of_length(text: &str, length: usize) -> String {
    text.chars()
        .cycle()
        .scan(0, |sum, c| {
            *sum += c.len_utf8();
            (*sum <= length).then_some(c)
        })
        .collect()
}

/// Does `what` in a loop; `before` once. `t` and `u` are long texts that differ in their last character only.
fn looped(name: &'static str, text: &'static str, before: &'static str, what: &'static str) -> Kind {
    let make = move |times: usize| {
        let t = of_length(text, 127 * KIB);
        // As many arguments as it takes: one payload counts to 128 Ki.
        let one = format!(
            "{{% set t = payloads.t %}}{{% set u = payloads.u %}}{before}{{% for i in payloads.n %}}{what}{{% endfor %}}"
        );
        spec(&[("u", format!("{t}!")), ("t", format!("{t}?")), ("n", "i".repeat(times))], &[one])
    };
    Kind { name, most: 128 * KIB, make: Box::new(make) }
}

/// So many templates of one source.
fn templates(name: &'static str, source: impl Fn() -> String + Send + Sync + 'static) -> Kind {
    let make = move |times: usize| spec(&[("t", of_length("ab <c>'\n", 127 * KIB))], &vec![source(); times]);
    Kind { name, most: 256, make: Box::new(make) }
}

fn full(before: &str, middle: &str, after: &str) -> String {
    let times = (SOURCE - before.len() - after.len()) / middle.len();
    format!("{before}{}{after}", middle.repeat(times))
}

/// Tags of 4 KiB, each `body` repeated `times`.
fn tags(open: &str, body: &str, close: &str, times: usize) -> String {
    let tag = format!("{open}{}{close}", body.repeat(times));
    tag.repeat((4 * KIB / tag.len()).max(1))
}

/// Every kind that is known.
pub(crate) fn kinds() -> Vec<Kind> {
    let loops = LOOPS.iter().map(|(name, text, before, what)| looped(name, text, before, what));
    loops.chain(texts()).chain(tagged()).collect()
}

const ASCII: &str = "ab cd\n";

/// What is done in loops: its name, the text it is done to, what is done before, and what again and again.
const LOOPS: &[(&str, &str, &str, &str)] = &[
    ("nothing in a loop", ASCII, "", ""),
    ("a test", ASCII, "", "{% if a is defined %}{% endif %}"),
    ("a condition", ASCII, "", "{% if t and u and t and u and t and u and not t %}{% endif %}"),
    ("sums", ASCII, "", "{% set a = 1 + 2 + i|length + 3 + 4 + i|length + 5 - 6 %}"),
    ("divisions", ASCII, "{% set a = 1.5 %}", "{% set b = a / 3 // 2 % 7 - a %}"),
    ("members of the scope", ASCII, "", "{% set a = implementation.labels %}{% set a = run.name %}"),
    (
        "names below each other",
        ASCII,
        "{% for b in [1] %}{% for c in [1] %}{% for d in [1] %}{% for e in [1] %}{% for f in [1] %}{% for g in [1] %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for b in [1] %}{% for c in [1] %}{% for d in [1] %}{% for e in [1] %}{% for f in [1] %}{% for g in [1] %}{% if t and not t %}{% endif %}{% if t and t or t or t or t or t %}{% endif %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
    ),
    (
        "nested blocks",
        ASCII,
        "",
        "{% with a = i %}{% with a = i %}{% with a = i %}{% endwith %}{% endwith %}{% endwith %}",
    ),
    ("trim", " x ", "", "{% set a = t | trim %}"),
    ("upper of ASCII", ASCII, "", "{% set a = t | upper %}"),
    ("upper of others", "ßéŉ", "", "{% set a = t | upper %}"),
    ("upper of what grows", "ΐΰ", "", "{% set a = t | upper %}"),
    ("lower of others", "ÀÉİΣ", "", "{% set a = t | lower %}"),
    ("lower of sigmas", "Σ", "", "{% set a = t | lower %}"),
    ("upper of little", ASCII, "", "{% set a = i | upper | lower | upper | lower %}"),
    ("JSON of text", ASCII, "", "{% set a = t | tojson %}"),
    ("JSON of quotes", "\"\\<\u{1}", "", "{% set a = t[0:40000] | tojson %}"),
    ("JSON of a list", ASCII, "{% set l = t[:3000] | lines %}", "{% set a = l | tojson(indent=2) %}"),
    ("JSON of little lists", ASCII, "", "{% set a = [[], [], [[]], {}, 1, 2.5] | tojson %}"),
    ("JSON of the scope", ASCII, "", "{% set a = payloads | tojson %}"),
    ("lines", "\n", "", "{% set a = t[:60000] | lines %}"),
    ("lines of text", ASCII, "", "{% set a = t | lines %}"),
    ("join", ASCII, "{% set l = t | lines %}", "{% set a = l | join(', ') %}"),
    ("join of characters", ASCII, "", "{% set a = t | join %}"),
    ("join of numbers", ASCII, "", "{% set a = [1, 2.25, true, none, [], 1.0e300] | join(i) %}"),
    ("text of a list", "\u{1}'\"", "{% set l = [t] %}", "{% set a = l ~ '' %}"),
    ("text of numbers", ASCII, "{% set f = 1.0e308 %}", "{% set a = f ~ f ~ f ~ f ~ 1 ~ 2 ~ true %}"),
    ("length", "é", "", "{% if t | length == 1 %}{% endif %}"),
    (
        "first and last",
        ASCII,
        "{% set l = t | lines %}",
        "{% set a = l | last %}{% set a = l | first %}{% set a = t | last %}",
    ),
    ("defaults", ASCII, "", "{% set a = a | default(t) | default(t) | default(t) | default(t) %}"),
    ("long concatenations", ASCII, "", "{% set a = t ~ u %}"),
    ("short concatenations", ASCII, "", "{% set a = i ~ i ~ i ~ i ~ i ~ i ~ i %}"),
    ("middling concatenations", ASCII, "{% set m = t[:200] %}", "{% set a = m ~ m ~ m ~ m ~ m ~ m ~ m %}"),
    ("sums of text", ASCII, "", "{% set a = t + u %}"),
    ("sums of lists", ASCII, "{% set l = t | lines %}", "{% set a = l + l %}"),
    ("equal", ASCII, "{% set v = t ~ '' %}", "{% if t == v %}{% endif %}"),
    ("less", ASCII, "", "{% if t < u %}{% endif %}"),
    (
        "short comparisons",
        ASCII,
        "",
        "{% if i == 'x' or i == 'y' or i != 'i' or i < 'a' or 'a' < i > 'z' %}{% endif %}",
    ),
    ("chains", ASCII, "{% set v = t ~ '' %}", "{% if t == v == t == v == t %}{% endif %}"),
    ("equal lists", ASCII, "{% set l = t | lines %}{% set m = t | lines %}", "{% if l == m %}{% endif %}"),
    (
        "equal maps",
        ASCII,
        "{% set l = {'a': t, t: 1, t ~ 'a': 2} %}{% set m = {'a': t, t ~ '': 1, t ~ 'a': 2} %}",
        "{% if l == m %}{% endif %}",
    ),
    ("in text", "a", "{% set w = t[:60000] ~ 'b' %}", "{% if w in t %}{% endif %}"),
    ("in text, periodic", "ab", "{% set w = t[:30000] ~ 'aab' %}", "{% if w in t %}{% endif %}"),
    ("a character in text", ASCII, "", "{% if 'q' in t %}{% endif %}"),
    ("in little text", ASCII, "", "{% if 'q' in i or 'r' in i or 's' in i or 't' not in i %}{% endif %}"),
    ("in a list", ASCII, "{% set l = t | lines %}", "{% if 'q' in l %}{% endif %}"),
    ("in a list of long text", ASCII, "{% set v = t ~ '' %}{% set l = [t, t, t, t] %}", "{% if u in l %}{% endif %}"),
    ("in a map", ASCII, "{% set l = {t ~ 'a': 1, t ~ 'b': 1, t ~ 'c': 1, t ~ 'd': 1} %}", "{% if t in l %}{% endif %}"),
    ("a slice", "é", "", "{% set a = t[:-1] %}"),
    ("little slices", ASCII, "{% set m = t[:20] %}", "{% set a = m[1:2] ~ m[3:4] ~ m[:-3] %}"),
    ("slices of a list", ASCII, "{% set l = t | lines %}", "{% set a = l[1:] %}"),
    ("an item of text", "é", "", "{% set a = t[60000] %}{% set a = t[-1] %}"),
    ("an item of a list", ASCII, "{% set l = t | lines %}", "{% set a = l[7] %}{% set a = l[-1] %}{% set a = l[9] %}"),
    (
        "a member by a long key",
        ASCII,
        "{% set l = {t ~ 'a': 1, t ~ 'b': 1, t ~ 'c': 1, t ~ 'd': 1} %}",
        "{% set a = l[t] %}",
    ),
    (
        "maps with long keys",
        ASCII,
        "{% set v = t ~ 'a' %}{% set w = t ~ 'b' %}",
        "{% set a = {t: 1, u: 2, v: 3, w: 4} %}",
    ),
    ("little maps", ASCII, "", "{% set a = {'a': 1, 'b': i, 'c': 3, 'd': [i, i, i]} %}"),
    ("little lists", ASCII, "", "{% set a = [i, i, 1, [i], 2, 3] %}"),
    ("lists that are unpacked", ASCII, "", "{% for a, b in [(i, 1), (1, 1), (1, 1)] %}{% endfor %}"),
    ("changed", ASCII, "{% set v = t ~ '' %}", "{% if loop.changed(t) %}{% endif %}"),
    ("changed lists", ASCII, "{% set l = t | lines %}", "{% if loop.changed(l, l) %}{% endif %}"),
    ("cycle", ASCII, "", "{% set a = loop.cycle('a', 'b', 'c') %}{% set a = loop.index %}{% set a = loop.nextitem %}"),
    ("a loop over little", ASCII, "", "{% for a in 'abc' %}{% endfor %}"),
    (
        "a loop over a list with a condition",
        ASCII,
        "{% set l = t[:6000] | lines %}",
        "{% for a in l if a == 'x' %}{% endfor %}",
    ),
    ("a loop over a map", ASCII, "", "{% for a in inputs %}{% endfor %}"),
    ("little is printed", ASCII, "", "{{ i }}{{ i }}{{ 1 }}x{{ true }}"),
    ("floats are printed", ASCII, "{% set f = 0.1 %}", "{{ f }}{{ f / 3 }}"),
];

/// Templates that cost by their text.
fn texts() -> Vec<Kind> {
    vec![
        templates("much is printed", || "{{ payloads.t }}".repeat(8)),
        templates("much is printed, escaped", || {
            "{% autoescape 'html' %}{{ payloads.t }}{% endautoescape %}".to_owned()
        }),
        templates("text alone", || "x".repeat(SOURCE)),
        templates("lines alone", || "\n".repeat(SOURCE)),
        templates("braces alone", || "{ ".repeat(SOURCE / 2)),
        templates("a comment", || format!("{{#{}#}}", "x".repeat(SOURCE - 4))),
        templates("comments", || "{##}".repeat(SOURCE / 4)),
        templates("what is raw", || full("", "{% raw %}{{{% endraw %}", "")),
        templates("white space in tags", || tags("{{ 1", " ", "}}", 2000)),
    ]
}

/// Templates that cost by their tags.
fn tagged() -> Vec<Kind> {
    vec![
        templates("little tags", || "{{1}}".repeat(500)),
        templates("little names", || "{{inputs.a}}".repeat(500)),
        templates("long literals", || tags("{{ '", "x", "' }}", 2000)),
        templates("escapes in literals", || tags("{{ '", "\\n", "' }}", 990)),
        templates("sums of constants", || tags("{% set a = 1", "+1", " %}", 95)),
        templates("sums with constants", || tags("{% set a = inputs.a|length", "+1", " %}", 92)),
        templates("texts with constants", || tags("{% set a = inputs.a", "~'xxxxxxxxxxxxxxxx'", " %}", 90)),
        templates("texts of constants, folded again", || {
            let folded = format!("('{}'{})", "x".repeat(1200), "~'x'".repeat(60));
            format!("{{% set a = {folded} == inputs.a{} %}}", " == 1".repeat(30)).repeat(2)
        }),
        templates("texts of constants under operators", || {
            let folded = format!("'{}'{}", "x".repeat(1200), "~'x'".repeat(40));
            format!("{{% set a = {folded}{} %}}", "~inputs.a".repeat(17)).repeat(2)
        }),
        templates("lists of constants", || tags("{% set a = [1", ",1", "] %}", 92)),
        templates("lists of constants again", || tags("{% set a = [1", ",1", "] == 1 == inputs.a == 1 == 1 %}", 80)),
        templates("many variables", || {
            (0..500).map(|n| format!("{{% set a{n} = inputs.a %}}")).collect::<Vec<_>>().concat()
        }),
        templates("conditions", || format!("{}{}", "{% if inputs.a %}".repeat(32), "{% endif %}".repeat(32))),
        templates("a chain of conditions", || {
            format!("{{% if inputs.b is defined %}}{}{{% endif %}}", "{% elif inputs.b is defined %}".repeat(50))
        }),
        templates("conditions in conditions", || tags("{% set a = ", "1 if inputs.b is defined else ", "1 %}", 24)),
        templates("filters of filters", || tags("{% set a = inputs.a", "|d", " %}", 18)),
        templates("negations", || tags("{% set a = ", "not ", "inputs.a %}", 180)),
        templates("members of members", || tags("{% if inputs.b is defined and inputs.b", ".a", " %}{% endif %}", 90)),
        templates("brackets", || tags("{% set a = ", "((((1)))),", "1 %}", 18)),
        templates("loops", || "{% for a in '1' %}{% endfor %}".repeat(100)),
        templates("long names", || {
            let name = "a".repeat(1900);
            format!("{{% set {name} = 1 %}}{{{{ {name} }}}}").repeat(2)
        }),
    ]
}
