use super::*;

fn read(schema: &Value) -> Result<Schema, Problem> {
    Schema::read(schema.as_object().unwrap())
}

fn refused(schema: &Value) -> String {
    let Problem { at, text } = read(schema).map(|_| ()).expect_err("refused");
    format!("{at}: {text}")
}

fn said(schema: &Value, value: &Value) -> Option<String> {
    let Problem { at, text } = read(schema).unwrap().problem(value)?;
    Some(format!("{at}: {text}"))
}

#[test]
fn the_first_problem_is_told_with_its_place_and_without_the_value() {
    let schema = json!({
        "type": "object", "required": ["version"],
        "properties": {"version": {"type": "string", "pattern": "^v\\d+$"}, "hosts": {"items": {"maxLength": 3}}},
    });
    assert_eq!(said(&schema, &json!({"version": "v1", "hosts": ["a"]})), None);
    assert_eq!(said(&schema, &json!({})).unwrap(), ": \"version\" is a required property");
    assert_eq!(said(&schema, &json!({"version": "secret"})).unwrap(), ".version: the value does not match \"^v\\d+$\"");
    let long = said(&schema, &json!({"version": "v1", "hosts": ["a", "secret"]})).unwrap();
    assert!(long.starts_with(".hosts[1]: ") && !long.contains("secret"), "{long}");
}

#[test]
fn references_within_the_schema_are_followed() {
    // As pydantic writes the schema of a model in a model.
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": {"Build": {"type": "object", "required": ["id"],
        "properties": {"id": {"type": "integer"}}}}, "properties": {"build": {"$ref": "#/$defs/Build", "title": "t"},
        "other": {"$ref": "#/properties/build"}},
    });
    assert_eq!(said(&schema, &json!({"build": {"id": 1}, "other": {"id": 2}})), None);
    assert!(said(&schema, &json!({"build": {"id": "x"}})).unwrap().starts_with(".build.id: "));
    assert!(said(&schema, &json!({"other": {}})).unwrap().starts_with(".other: "));
}

#[test]
fn what_is_no_schema_or_leads_out_or_has_no_end_is_refused_by_its_place() {
    let all = [
        json!({"type": "thing"}),
        json!({"properties": {"a": {"minLength": "x"}}}),
        json!({"items": [{}]}),
        json!({"properties": []}),
        json!({"properties": {"a": {"$ref": "https://example.com/schema"}}}),
        json!({"$ref": "#"}),
        json!({"$ref": "#/nothing/there"}),
        json!({"$ref": "#foo"}),
        json!({"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
        json!({"allOf": [{"unevaluatedProperties": false}]}),
        json!({"$dynamicRef": "#a"}),
        json!({"properties": {"a": {"nullable": true}, "b": {"items": {"additionalItems": {}}}}}),
        json!({"properties": {"a": {"dependencies": {}}}}),
        json!({"proprties": {}}),
        json!({"properties": {"a": {"pattern": "("}}}),
        json!({"pattern": "(?=a)"}),
        json!({"pattern": "^(\\w{1,200}){1,200}$"}),
    ];
    let refused: Vec<String> = all.iter().map(refused).collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn no_schema_is_dear() {
    // Each definition names the next one twice: 2^40 schemas.
    let mut definitions = Map::new();
    for n in 0..40 {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        definitions.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
    }
    definitions.insert("d40".to_owned(), json!({"type": "string"}));
    let doubling = json!({"$defs": definitions, "$ref": "#/$defs/d0"});
    assert!(refused(&doubling).ends_with("the schema has more than 20000 values, references laid out"));
    let patterns: Map<_, _> = (0..=MAX_PATTERNS).map(|n| (format!("p{n}"), json!({"pattern": "^a$"}))).collect();
    assert!(refused(&json!({"properties": patterns})).contains("more than 32 patterns"));
    // One long text that many name.
    let text = json!({"$defs": {"a": {"const": "x".repeat(60_000)}}, "anyOf": vec![json!({"$ref": "#/$defs/a"}); 3]});
    assert!(refused(&text).contains("more than 131072 bytes"));
    let long = json!({"pattern": "[^\\p{L}]".repeat(200)});
    assert!(refused(&long).starts_with(".pattern: is not a pattern that is taken"));
    let large = json!({"properties": {"a": {"pattern": "^[a-z]{900}$"}, "b": {"pattern": "^[a-z]{1000}$"}}});
    assert!(refused(&large).starts_with(".properties.b.pattern: all patterns together are too large"));
    let deep = (0..200).fold(json!({}), |inner, _| json!({"not": inner}));
    assert!(refused(&deep).contains("more than 96 levels"));
    let many: Vec<_> = (0..5000).map(|n| json!({"const": n})).collect();
    let dear = json!({"additionalProperties": {"anyOf": many}});
    let value: Map<_, _> = (0..5000).map(|n| (format!("k{n}"), json!(-1))).collect();
    assert!(said(&dear, &Value::Object(value)).unwrap().contains("too dear"));
}

/// What people write to know a version, a mail address, a digest or a slug.
#[test]
fn usual_patterns_are_taken_together() {
    let all = [
        r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?$",
        r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
        r"^sha256:[0-9a-f]{64}$",
        r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        r"^https://[^\s/]+(/\S*)?$",
        r"^[\w.-]{1,100}$",
        r"^\d{4}-\d{2}-\d{2}$",
    ];
    let properties: Map<_, _> = all.iter().enumerate().map(|(n, p)| (format!("p{n}"), json!({"pattern": p}))).collect();
    let schema = json!({"properties": properties});
    assert_eq!(said(&schema, &json!({"p0": "1.4.0-rc.1", "p1": "a@b.c", "p5": "a_b"})), None);
    assert!(said(&schema, &json!({"p6": "26-11-2026"})).is_some());
}

/// What generators write beside it: annotations, names of definitions as in a URL, a name of its own.
#[test]
fn what_says_nothing_is_passed_over() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/a", "definitions":
        {"a b": {"type": "string", "example": 1, "x-order": 2}},
        "properties": {"v": {"$ref": "#/definitions/a%20b", "discriminator": {"propertyName": "x"}, "format": "email"}},
    });
    assert_eq!(said(&schema, &json!({"v": "x"})), None);
    assert!(said(&schema, &json!({"v": 1})).unwrap().starts_with(".v: "));
}

/// Each branch has its reasons, and each reason keeps what it is about.
#[test]
fn where_a_large_value_differs_is_not_looked_for_among_branches() {
    let branches: Vec<_> = (0..300).map(|n| json!({"items": {"const": n}})).collect();
    let schema = json!({"anyOf": branches});
    let large = vec![json!("x".repeat(60)); 900];
    assert_eq!(said(&schema, &json!(large)).unwrap(), ": it is not as its schema has it; it is too large to say where");
    assert!(said(&schema, &json!(["x"])).unwrap().contains("anyOf"));
}

#[test]
fn nothing_hidden_comes_out_of_a_value() {
    let schema = json!({"properties": {}, "additionalProperties": false});
    let text = said(&schema, &json!({"\u{1b}[31mred\u{202e}": 1})).unwrap();
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    let deep = json!({"additionalProperties": {"additionalProperties": false}});
    let text = said(&deep, &json!({"k".repeat(5000): {"\u{1b}": 1}})).unwrap();
    assert!(text.len() < 300 && text.contains("does not allow"), "{text:?}");
}

#[test]
fn a_place_is_read_back_from_a_pointer() {
    assert_eq!((place(""), place("/a/0/b~1c~0")), (String::new(), ".a[0].b/c~".to_owned()));
}
