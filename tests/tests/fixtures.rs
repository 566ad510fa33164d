//! Ring 1: the fixtures and examples without any server, as far as our types, rules and checks go.

use std::collections::BTreeMap;

use agents_tests::{
    fixtures::{Judge, Refusal, examples, fixtures, kinds, row_of},
    schema,
};
use anyhow::{Context as _, Result, ensure};
use kube::core::cel::Validator;

#[test]
fn what_is_valid_is_kept_whole_and_faultless() -> Result<()> {
    let rows = kinds();
    let valid = fixtures()?.into_iter().filter(|fixture| fixture.refusal.is_none());
    let valid = valid.flat_map(|fixture| fixture.documents.into_iter().map(move |one| (fixture.path.clone(), one)));
    for (path, object) in valid.chain(examples()?) {
        let row = row_of(&rows, &object).context(path.clone())?;
        let read = (row.through_types)(object.clone()).context(path.clone())?;
        for part in ["spec", "status"] {
            let lost = schema::difference(&row.schema["properties"][part], &object[part], &read[part]);
            ensure!(lost.is_none(), "{path}: {part}{}", lost.unwrap_or_default());
        }
        let faults = (row.faults)(object.clone()).context(path.clone())?;
        ensure!(faults.is_empty(), "{path}: {faults:?}");
        let broken = Validator::new().validate(&row.schema, &object, None);
        ensure!(broken.is_ok(), "{path}: {broken:?}");
    }
    Ok(())
}

#[test]
fn what_is_invalid_breaks_the_rule_or_fails_the_check_it_names() -> Result<()> {
    let rows = kinds();
    let mut wrong = Vec::new();
    for fixture in fixtures()? {
        let Some(Refusal { by, field, message, status }) = &fixture.refusal else { continue };
        let object = fixture.documents.last().context("a document")?;
        let row = row_of(&rows, object).context(fixture.path.clone())?;
        let found: Vec<(String, String)> = match by {
            // Held against the schema by the API server.
            Judge::Schema => continue,
            Judge::Rule => {
                let old = (fixture.documents.len() == 2).then(|| {
                    let mut old = fixture.documents[0].clone();
                    if let Some(status) = status {
                        old["status"] = status.clone();
                    }
                    old
                });
                let broken = Validator::new().validate(&row.schema, object, old.as_ref());
                let broken = broken.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
                broken.into_iter().map(|one| (one.field_path, one.message)).collect()
            }
            Judge::Check => {
                let faults = (row.faults)(object.clone()).context(fixture.path.clone())?;
                faults.into_iter().map(|fault| (fault.field, fault.problem)).collect()
            }
        };
        if !found.iter().any(|(at, why)| at.trim_start_matches('.') == field && why.contains(message)) {
            wrong.push(format!("{}: {message:?} at {field} is not among {found:?}", fixture.path));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_field_is_explained() {
    let mut silent = BTreeMap::new();
    for row in kinds() {
        schema::fields(&row.schema, &mut |path, field| {
            // The two parts of an object are explained by the server itself where we say nothing.
            if field["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
                silent.entry(row.plural).or_insert_with(Vec::new).push(path.to_owned());
            }
        });
    }
    assert_eq!(silent, BTreeMap::new());
}
