//! The fixtures, the examples and random objects on a real API server: admitted and kept whole, or refused by name.

use std::{path::PathBuf, sync::Arc};

use agents_kube::lint::Definitions;
use agents_runtime::manifest::Document;
use agents_tests::{
    fixtures::{Fixture, Judge, KindRow, Refusal, examples, fixtures, kinds, row_of},
    schema::{self, instances},
};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::{
    stage::{Stage, play},
    wire::{Answer, ask},
};

/// Requests under way at a time.
const AT_ONCE: usize = 8;
/// Random objects per kind, and random statuses.
const RANDOM: usize = 60;
/// Broken specs per kind.
const BROKEN: usize = 80;
/// Fewest random objects that must be admitted for the rest to mean something.
const ADMITTED: usize = 5;

/// Every valid fixture and every example is admitted without a warning and read back, by others and by us, as it was
/// written.
pub(crate) fn valid_manifests_are_kept_whole(cluster: &Cluster) -> Result<()> {
    play(cluster, "valid", async |stage| {
        let rows = kinds();
        let valid = fixtures()?.into_iter().filter(|fixture| fixture.refusal.is_none());
        let valid = valid.flat_map(|fixture| fixture.documents.into_iter().map(move |one| (fixture.path.clone(), one)));
        let all: Vec<(String, Value)> = valid.chain(examples()?).collect();
        ensure!(all.len() > 2 * rows.len(), "{} manifests", all.len());
        for (path, object) in all {
            kept(stage, row_of(&rows, &object)?, object).await.context(path)?;
        }
        Ok(())
    })
}

async fn kept(stage: &Stage<'_>, row: &KindRow, mut object: Value) -> Result<()> {
    object["metadata"].as_object_mut().context("no metadata")?.remove("namespace");
    let created = create(stage, row, &object, "").await?;
    ensure!(created.code == 201, "refused: {created:#?}");
    ensure!(created.warnings.is_empty(), "warned: {:?}", created.warnings);
    let path = path_of(stage, row, &created.body)?;
    let mut read = ask(stage, Method::GET, &path, None).await?.body;
    if !object["status"].is_null() {
        read["status"] = object["status"].clone();
        let stored = ask(stage, Method::PUT, &format!("{path}/status?fieldValidation=Strict"), Some(&read)).await?;
        ensure!(stored.code == 200 && stored.warnings.is_empty(), "the status is refused: {stored:#?}");
        read = stored.body;
    }
    let ours = (row.through_types)(read.clone()).context("our types refuse what was stored")?;
    for part in ["spec", "status"] {
        let schema = &row.schema["properties"][part];
        if let Some(lost) = schema::difference(schema, &object[part], &read[part]) {
            bail!("the server changed {part}{lost}");
        }
        if let Some(lost) = schema::difference(schema, &read[part], &ours[part]) {
            bail!("our types changed {part}{lost}");
        }
    }
    let faults = (row.faults)(read)?;
    ensure!(faults.is_empty(), "{faults:?}");
    let removed = ask(stage, Method::DELETE, &path, None).await?;
    ensure!(removed.code == 200, "{removed:#?}");
    Ok(())
}

/// Every invalid fixture is refused by whom, at which field and with the words it says.
pub(crate) fn invalid_manifests_are_refused_by_name(cluster: &Cluster) -> Result<()> {
    play(cluster, "invalid", async |stage| {
        let rows = Arc::new(kinds());
        let mut wrong = Vec::new();
        let mut seen = 0;
        for fixture in fixtures()? {
            let Some(refusal) = fixture.refusal.clone() else { continue };
            seen += 1;
            if let Err(error) = refused(stage, &rows, &fixture, &refusal).await {
                wrong.push(format!("{}: {error:#}", fixture.path));
            }
        }
        ensure!(wrong.is_empty(), "{} of {seen}:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(seen > 0, "there are no invalid fixtures");
        Ok(())
    })
}

async fn refused(stage: &Stage<'_>, rows: &[KindRow], fixture: &Fixture, refusal: &Refusal) -> Result<()> {
    let Fixture { path: _, plural: _, documents, refusal: _ } = fixture;
    let Refusal { by, field, message, status } = refusal;
    let first = &documents[0];
    let row = rows.iter().find(|row| row.plural == fixture.plural).context("belongs to no kind")?;
    let created = create(stage, row, first, "").await?;
    let answer = match documents.get(1) {
        None => created,
        Some(second) => {
            ensure!(created.code == 201, "the first document is refused: {created:#?}");
            let path = path_of(stage, row, &created.body)?;
            let mut current = created.body;
            if let Some(status) = status {
                current["status"] = status.clone();
                let stored = ask(stage, Method::PUT, &format!("{path}/status"), Some(&current)).await?;
                ensure!(stored.code == 200, "the status is refused: {stored:#?}");
                current = stored.body;
            }
            let mut changed = second.clone();
            changed["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
            let changed = ask(stage, Method::PUT, &format!("{path}?fieldValidation=Strict"), Some(&changed)).await?;
            let removed = ask(stage, Method::DELETE, &path, None).await?;
            ensure!(removed.code == 200, "{removed:#?}");
            changed
        }
    };
    if answer.code == 201 {
        // The next fixture may be of the same name.
        let removed = ask(stage, Method::DELETE, &path_of(stage, row, &answer.body)?, None).await?;
        ensure!(removed.code == 200, "{removed:#?}");
    }
    match by {
        Judge::Schema | Judge::Rule => {
            ensure!(matches!(answer.code, 400 | 422), "{}, though {by:?} should refuse it", answer.code);
            let named = answer.causes().any(|(at, why)| at == field && why.contains(message));
            let text = answer.message();
            // Fields that no schema knows are refused before any cause is named.
            let strict = answer.code == 400 && text.contains(message) && text.contains(&format!("\"{field}\""));
            ensure!(named || strict, "{message:?} at {field} is not in: {text}");
        }
        Judge::Check => {
            ensure!(answer.code == 201, "the server should admit it: {}", answer.message());
            let faults = (row.faults)(answer.body.clone())?;
            let named = faults.iter().any(|fault| fault.field == *field && fault.problem.contains(message));
            ensure!(named, "{message:?} at {field} is not among {faults:?}");
        }
    }
    Ok(())
}

/// Whatever the schema of a kind admits, our types read and write without loss; and what they write is admitted.
pub(crate) fn random_objects_are_kept_whole(cluster: &Cluster) -> Result<()> {
    play(cluster, "random", async |stage| {
        for row in kinds() {
            random(stage, &row).await.with_context(|| row.kind)?;
        }
        Ok(())
    })
}

async fn random(stage: &Stage<'_>, row: &KindRow) -> Result<()> {
    let example: Value = serde_saphyr::from_str(row.example)?;
    let spec = &row.schema["properties"]["spec"];
    let mut runner = TestRunner::deterministic();
    let mut specs = Vec::new();
    let (fresh, mixed) = (instances::of(spec), instances::mixed(spec, &example["spec"]));
    for n in 0..RANDOM {
        let strategy = if n % 3 == 0 { &fresh } else { &mixed };
        specs.push(strategy.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("no value: {error}"))?.current());
    }
    let admitted: Vec<bool> = stream::iter(specs)
        .map(|spec| async move {
            let object = json!({"metadata": {"name": "random"}, "spec": spec});
            admitted_and_kept(stage, row, object.clone()).await.with_context(|| format!("{object}"))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let count = admitted.iter().filter(|admitted| **admitted).count();
    ensure!(count >= ADMITTED, "only {count} of {RANDOM} were admitted: the generator misses what the rules want");

    let mut object = example;
    object["metadata"] = json!({"name": "random"});
    let stored = create(stage, row, &object, "").await?;
    ensure!(stored.code == 201, "{stored:#?}");
    let path = path_of(stage, row, &stored.body)?;
    let statuses = instances::of(&row.schema["properties"]["status"]);
    let mut made = Vec::new();
    for _ in 0..RANDOM {
        made.push(statuses.new_tree(&mut runner).map_err(|error| anyhow::anyhow!("no value: {error}"))?.current());
    }
    stream::iter(made)
        .map(|status| {
            let (body, path) = (&stored.body, &path);
            async move {
                let mut object = body.clone();
                object["status"] = status;
                status_kept(stage, row, path, &object).await.with_context(|| format!("{}", object["status"]))
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn admitted_and_kept(stage: &Stage<'_>, row: &KindRow, object: Value) -> Result<bool> {
    let answer = create(stage, row, &object, "&dryRun=All").await?;
    if answer.code == 422 {
        // Only rules may refuse what was made from the schema.
        let schema = answer.causes().find(|(_, why)| why.contains(" in body "));
        ensure!(schema.is_none(), "the schema refuses it: {}", answer.message());
        return Ok(false);
    }
    ensure!(answer.code == 201, "{}", answer.message());
    ensure!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    let spec = &row.schema["properties"]["spec"];
    if let Some(lost) = schema::difference(spec, &object["spec"], &answer.body["spec"]) {
        bail!("the server changed spec{lost}");
    }
    let mut ours = (row.through_types)(answer.body.clone()).context("our types refuse it")?;
    if let Some(lost) = schema::difference(spec, &object["spec"], &ours["spec"]) {
        bail!("our types changed spec{lost}");
    }
    ours["metadata"] = json!({"name": "again"});
    let again = create(stage, row, &ours, "&dryRun=All").await?;
    ensure!(again.code == 201, "what our types wrote is refused: {}", again.message());
    if let Some(lost) = schema::difference(spec, &ours["spec"], &again.body["spec"]) {
        bail!("the server changed what our types wrote: spec{lost}");
    }
    Ok(true)
}

async fn status_kept(stage: &Stage<'_>, row: &KindRow, path: &str, object: &Value) -> Result<()> {
    let at = format!("{path}/status?fieldValidation=Strict&dryRun=All");
    let answer = ask(stage, Method::PUT, &at, Some(object)).await?;
    ensure!(answer.code == 200 && answer.warnings.is_empty(), "{}", answer.message());
    let schema = &row.schema["properties"]["status"];
    if let Some(lost) = schema::difference(schema, &object["status"], &answer.body["status"]) {
        bail!("the server changed status{lost}");
    }
    let ours = (row.through_types)(answer.body).context("our types refuse the status")?;
    if let Some(lost) = schema::difference(schema, &object["status"], &ours["status"]) {
        bail!("our types changed status{lost}");
    }
    Ok(())
}

/// What is said without a server is what the server says, of good specs and of broken ones.
pub(crate) fn lint_judges_as_the_server_does(cluster: &Cluster) -> Result<()> {
    play(cluster, "lint", async |stage| {
        let definitions = Definitions::new();
        let mut wrong = Vec::new();
        for row in kinds() {
            let mut bases = vec![serde_saphyr::from_str::<Value>(row.example)?];
            let valid = fixtures()?.into_iter().filter(|one| one.refusal.is_none() && one.plural == row.plural);
            bases.extend(valid.flat_map(|fixture| fixture.documents));
            let schema = &row.schema["properties"]["spec"];
            let mut runner = TestRunner::deterministic();
            let mut objects = Vec::new();
            for n in 0..BROKEN {
                let base = match &bases[n % bases.len()]["spec"] {
                    Value::Null => json!({}),
                    base => base.clone(),
                };
                let tree = instances::broken(schema, &base).new_tree(&mut runner);
                let spec = tree.map_err(|error| anyhow::anyhow!("no value: {error}"))?.current();
                let api_version = row.api_version();
                let metadata = json!({"name": "broken"});
                objects.push(json!({"apiVersion": api_version, "kind": row.kind, "metadata": metadata, "spec": spec}));
            }
            let answers: Vec<(Value, Answer)> = stream::iter(objects)
                .map(|object| async {
                    create(stage, &row, &object, "&dryRun=All").await.map(|answer| (object, answer))
                })
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await?;
            for (object, answer) in answers {
                let document = Document {
                    file: String::new(),
                    folder: PathBuf::new(),
                    number: 1,
                    path: String::new(),
                    node: serde_saphyr::from_str(&object.to_string())?,
                };
                let judged = document.object(&definitions);
                if judged.is_ok() != (answer.code == 201) {
                    let said = judged.map_or_else(|faults| format!("{faults:?}"), |_| "nothing".to_owned());
                    let (spec, server) = (&object["spec"], answer.message());
                    wrong.push(format!("{}: {spec}\n  the server: {server}\n  we: {said}", row.kind));
                }
            }
        }
        wrong.truncate(10);
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// Every definition is established and structural, every field explained, every kind found by the category.
pub(crate) fn every_kind_is_served_and_explained(cluster: &Cluster) -> Result<()> {
    play(cluster, "served", async |stage| {
        for row in kinds() {
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{}", row.plural, row.group);
            let definition = ask(stage, Method::GET, &path, None).await?.body;
            for condition in definition["status"]["conditions"].as_array().context("no conditions")? {
                let good = matches!(condition["type"].as_str(), Some("Established" | "NamesAccepted"));
                ensure!((condition["status"] == "True") == good, "{}: {condition:#}", row.kind);
            }
            // One field of another spelling anywhere would be lost on the way to `kubectl explain`.
            let root = served_schema(stage, &row).await?;
            let mut silent = Vec::new();
            for part in ["spec", "status"] {
                let mut wanted = Vec::new();
                schema::fields(&row.schema["properties"][part], &mut |path, _| wanted.push(path.to_owned()));
                schema::fields(&root["properties"][part], &mut |path, field| {
                    wanted.retain(|one| one != path);
                    if field["description"].as_str().is_none_or(str::is_empty) {
                        silent.push(format!("{part}.{path}"));
                    }
                });
                ensure!(wanted.is_empty(), "{}: not served: {wanted:?}", row.kind);
            }
            ensure!(silent.is_empty(), "{} has fields without text: {silent:?}", row.kind);
            let explained = stage.kubectl(&["explain", &format!("{}.{}", row.plural, row.group), "--recursive"])?;
            schema::fields(&row.schema["properties"]["spec"], &mut |path, _| {
                let name = path.rsplit(['.', '}', ']']).next().unwrap_or(path);
                if !explained.contains(name) {
                    silent.push(path.to_owned());
                }
            });
            ensure!(silent.is_empty(), "kubectl explain of {} leaves out {silent:?}", row.kind);
            let mut object: Value = serde_saphyr::from_str(row.example)?;
            object["metadata"] = json!({"name": "one"});
            let created = create(stage, &row, &object, "").await?;
            ensure!(created.code == 201, "{created:#?}");
        }
        let all = stage.kubectl(&["get", "agents-all", "--output=name"])?;
        for row in kinds() {
            let singular = row.kind.to_lowercase();
            let name = format!("{singular}.{}/one", row.group);
            ensure!(all.lines().any(|line| line == name), "{name} is not among\n{all}");
        }
        Ok(())
    })
}

/// The schema of a kind in the OpenAPI document, which follows the definition after a while.
async fn served_schema(stage: &Stage<'_>, row: &KindRow) -> Result<Value> {
    let document = format!("/openapi/v3/apis/{}/v1alpha1", row.group);
    stage
        .until(&format!("{} in {document}", row.kind), async || {
            let answer = ask(stage, Method::GET, &document, None).await?;
            let schemas = answer.body["components"]["schemas"].as_object();
            let found = schemas.into_iter().flatten().find(|(_, schema)| {
                let kinds = schema["x-kubernetes-group-version-kind"].as_array();
                kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] == row.kind))
            });
            Ok(found.map(|(_, schema)| schema.clone()))
        })
        .await
}

async fn create(stage: &Stage<'_>, row: &KindRow, object: &Value, more: &str) -> Result<Answer> {
    let mut object = object.clone();
    if object["apiVersion"].is_null() {
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.into();
    }
    let path = format!("{}?fieldValidation=Strict{more}", row.path(&stage.namespace));
    ask(stage, Method::POST, &path, Some(&object)).await
}

fn path_of(stage: &Stage<'_>, row: &KindRow, object: &Value) -> Result<String> {
    let name = object["metadata"]["name"].as_str().context("an object without a name")?;
    Ok(format!("{}/{name}", row.path(&stage.namespace)))
}
