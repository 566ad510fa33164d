//! Ring 1: the fixtures and examples without any server, as far as our types, rules and checks go.

use std::collections::BTreeMap;

use agents_kube::lint::{Options, Severity, lint};
use agents_runtime::manifest::{ManifestFault, Rule, Source};
use agents_tests::{
    fixtures::{Judge, Refusal, examples, fixtures, kinds, row_of},
    schema,
};
use anyhow::{Context as _, Result, ensure};
use kube::core::cel::Validator;
use xtask::workspace;

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

/// What the lint says of one file.
fn errors(path: &str, partial: bool) -> Result<Vec<ManifestFault>> {
    let report = lint(&[Source::Path(workspace().join(path))], Options { partial })?;
    let errors = report.findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    Ok(errors.map(|finding| finding.fault).collect())
}

/// Enough of both for every kind, and most for those that users meet first.
#[test]
fn every_kind_has_manifests_that_are_refused_and_some_that_are_not() -> Result<()> {
    let fixtures = fixtures()?;
    for row in kinds() {
        let of_kind = fixtures.iter().filter(|fixture| fixture.plural == row.plural);
        let (invalid, valid): (Vec<_>, Vec<_>) = of_kind.partition(|fixture| fixture.refusal.is_some());
        let core = matches!(row.kind, "Agent" | "AgentProvider" | "AgentRun" | "ImplementationSpec");
        let wanted = if core { 12 } else { 4 };
        ensure!(invalid.len() >= wanted && valid.len() >= 2, "{}: {} and {}", row.kind, invalid.len(), valid.len());
    }
    Ok(())
}

#[test]
fn the_lint_has_nothing_against_what_is_valid() -> Result<()> {
    for fixture in fixtures()?.into_iter().filter(|fixture| fixture.refusal.is_none()) {
        let errors = errors(&fixture.path, true)?;
        ensure!(errors.is_empty(), "{}: {errors:?}", fixture.path);
    }
    for folder in std::fs::read_dir(workspace().join("examples"))? {
        let folder = folder?.path();
        if folder.is_dir() {
            let errors = errors(&folder.display().to_string(), false)?;
            ensure!(errors.is_empty(), "{}: {errors:?}", folder.display());
        }
    }
    Ok(())
}

#[test]
fn the_lint_finds_what_is_invalid_at_the_same_field() -> Result<()> {
    let mut wrong = Vec::new();
    for fixture in fixtures()? {
        let Some(Refusal { by, field, message, status: _ }) = &fixture.refusal else { continue };
        // Nothing is wrong with a changed object by itself.
        if fixture.documents.len() > 1 {
            continue;
        }
        let found = errors(&fixture.path, true)?;
        // The words of schema faults are the lint's own.
        let found_it = found.iter().any(|fault| {
            let of_judge = match by {
                Judge::Schema => !matches!(fault.rule, Rule::Rule | Rule::Check),
                Judge::Rule => fault.rule == Rule::Rule && fault.problem.contains(message),
                Judge::Check => fault.rule == Rule::Check && fault.problem.contains(message),
            };
            of_judge && fault.field == *field && fault.place.line > 0
        });
        if !found_it {
            wrong.push(format!("{}: {by:?} at {field} is not among {found:?}", fixture.path));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn a_refused_change_breaks_a_rule() -> Result<()> {
    let rows = kinds();
    for fixture in fixtures()? {
        let (Some(Refusal { by, field, message, status }), [old, new]) = (&fixture.refusal, &fixture.documents[..])
        else {
            continue;
        };
        ensure!(*by == Judge::Rule, "{}: only rules see two versions of an object", fixture.path);
        let row = row_of(&rows, new).context(fixture.path.clone())?;
        let mut old = old.clone();
        if let Some(status) = status {
            old["status"] = status.clone();
        }
        let broken = Validator::new().validate(&row.schema, new, Some(&old));
        let broken = broken.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
        let named =
            broken.iter().any(|one| one.field_path.trim_start_matches('.') == field && one.message.contains(message));
        ensure!(named, "{}: {message:?} at {field} is not among {broken:?}", fixture.path);
    }
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
