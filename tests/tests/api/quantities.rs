//! Our parser of quantities against the API server's own: what is one, what it is printed as, which is more.

use std::collections::BTreeSet;

use agents_core::quantity::{Quantity, QuantityError};
use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::stage::{Stage, play};

/// Texts in one request.
const TEXTS: usize = 200;
/// Requests of each sort.
const REQUESTS: usize = 4;

/// What the API server's parser refuses we refuse, what it prints we print, and it orders amounts as we do.
pub(crate) fn quantities_are_those_of_the_api_server(cluster: &Cluster) -> Result<()> {
    play(cluster, "quantities", async |stage| {
        let judge = Judge::appoint(stage).await?;
        let mut texts = odd().into_iter().chain(texts());
        for _ in 0..REQUESTS {
            let batch: Vec<String> = texts.by_ref().take(TEXTS).collect();
            let refused = judge.refused(&batch).await?;
            let mut good = Vec::new();
            for (n, text) in batch.iter().enumerate() {
                match text.parse::<Quantity>() {
                    // The one point in which we are stricter.
                    Err(QuantityError::OutOfRange) => {
                        ensure!(!refused.contains(&n), "{text:?} is refused by the server for another reason");
                    }
                    Err(error) => ensure!(refused.contains(&n), "{text:?}: the server knows it, we say {error}"),
                    Ok(quantity) => {
                        ensure!(!refused.contains(&n), "{text:?}: the server refuses it, we read {quantity}");
                        good.push((text.as_str(), quantity));
                    }
                }
            }
            ensure!(good.len() > TEXTS / 4 && refused.len() > TEXTS / 20, "{} good of {}", good.len(), batch.len());
            printed_alike(stage, &good).await?;
            judge.order(&good).await?;
        }
        Ok(())
    })
}

/// A kind whose objects are judged by the API server's CEL functions, which use its own parser.
struct Judge(Api<DynamicObject>);

impl Judge {
    async fn appoint(stage: &Stage<'_>) -> Result<Self> {
        let definitions: Api<DynamicObject> = Api::all_with(
            stage.client.clone(),
            &ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition")),
        );
        let text = json!({"type": "string", "maxLength": 300});
        let mut judged = text.clone();
        judged["x-kubernetes-validations"] = json!([{"rule": "isQuantity(self)"}]);
        let spec = json!({
            "type": "object",
            "properties": {
                "texts": {"type": "array", "maxItems": TEXTS, "items": judged},
                "pairs": {"type": "array", "maxItems": TEXTS, "items": {
                    "type": "object",
                    "required": ["one", "two", "order"],
                    "properties": {"one": text, "two": text, "order": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "quantity(self.one).compareTo(quantity(self.two)) == self.order"}],
                }},
            },
        });
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "judges.quantities.invalid"},
            "spec": {
                "group": "quantities.invalid",
                "scope": "Namespaced",
                "names": {"kind": "Judge", "plural": "judges"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                }],
            },
        });
        let parameters = PatchParams::apply("quantities").force();
        definitions.patch("judges.quantities.invalid", &parameters, &Patch::Apply(definition)).await?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("quantities.invalid", "v1", "Judge"));
        let judge = Self(Api::namespaced_with(stage.client.clone(), &stage.namespace, &resource));
        stage.until("the judge", || async { Ok(judge.refused(&["1".to_owned()]).await.is_ok().then_some(())) }).await?;
        Ok(judge)
    }

    /// Which of the texts are no quantities.
    async fn refused(&self, texts: &[String]) -> Result<BTreeSet<usize>> {
        self.faults("texts", &json!(texts)).await
    }

    /// Compares each quantity with the next and with itself as we print it.
    async fn order(&self, good: &[(&str, Quantity)]) -> Result<()> {
        let next = good.windows(2).filter_map(|pair| match pair {
            [(one, a), (two, b)] => Some(json!({"one": one, "two": two, "order": a.cmp(b) as i8})),
            _ => None,
        });
        let same = good.iter().map(|(text, read)| json!({"one": text, "two": read.to_string(), "order": 0}));
        for pairs in [next.collect::<Vec<_>>(), same.collect()] {
            let wrong = self.faults("pairs", &json!(pairs)).await?;
            let wrong: Vec<_> = wrong.into_iter().filter_map(|n| pairs.get(n)).collect();
            ensure!(wrong.is_empty(), "the server orders these in another way: {wrong:?}");
        }
        Ok(())
    }

    /// The places in the list `field` that are refused.
    async fn faults(&self, field: &str, list: &Value) -> Result<BTreeSet<usize>> {
        let object = json!({
            "apiVersion": "quantities.invalid/v1",
            "kind": "Judge",
            "metadata": {"name": "judged"},
            "spec": {field: list},
        });
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let status = match self.0.create(&dry, &serde_json::from_value(object)?).await {
            Ok(_) => return Ok(BTreeSet::new()),
            Err(kube::Error::Api(status)) if status.code == 422 => status,
            Err(error) => return Err(error.into()),
        };
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        let places = causes.iter().map(|cause| {
            let place = cause.field.strip_prefix(&format!("spec.{field}[")).and_then(|rest| rest.strip_suffix(']'));
            place.and_then(|place| place.parse().ok()).with_context(|| format!("{}: {}", cause.field, cause.message))
        });
        let places = places.collect::<Result<BTreeSet<_>>>()?;
        ensure!(!places.is_empty(), "refused without a cause: {}", status.message);
        Ok(places)
    }
}

/// A native object comes back with each quantity in the form that we print. Lists of resources would not do: the server
/// rounds them to thousandths. Sizes are not negative.
async fn printed_alike(stage: &Stage<'_>, good: &[(&str, Quantity)]) -> Result<()> {
    let good: Vec<_> = good.iter().filter(|(_, quantity)| !quantity.is_negative()).collect();
    let templates: Api<DynamicObject> = Api::namespaced_with(
        stage.client.clone(),
        &stage.namespace,
        &ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "PodTemplate")),
    );
    let texts = good.iter().flat_map(|(text, _)| [(*text).to_owned(), lengthened(text)]);
    let volumes = texts.enumerate().map(|(n, text)| json!({"name": format!("v{n}"), "emptyDir": {"sizeLimit": text}}));
    let template = json!({
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": "printed"},
        "template": {"spec": {
            "containers": [{"name": "main", "image": "none"}],
            "volumes": volumes.collect::<Vec<_>>(),
        }},
    });
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let answer = templates.create(&dry, &serde_json::from_value(template)?).await;
    let answer = answer.context("the server refuses one of them")?;
    let printed = &answer.data["template"]["spec"]["volumes"];
    for (n, (text, quantity)) in good.iter().enumerate() {
        let word = |place: usize| printed[place]["emptyDir"]["sizeLimit"].as_str().unwrap_or_default();
        let (given, reckoned) = (word(2 * n), word(2 * n + 1));
        let ours = quantity.to_string();
        // A short text that needs no reckoning is printed as it was written.
        if given != ours && given != *text {
            bail!("{text:?} is {given:?} to the server, {ours:?} to us");
        }
        let long = lengthened(text);
        ensure!(reckoned == ours, "{long:?} is {reckoned:?} to the server, {ours:?} to us");
        ensure!(long.parse::<Quantity>().is_ok_and(|long| long.to_string() == ours), "{long:?} is not {ours}");
    }
    Ok(())
}

/// The same amount in so many digits that the server has to reckon.
fn lengthened(text: &str) -> String {
    let number = text.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(number);
    if !number.contains(|c: char| c.is_ascii_digit()) {
        return format!("0.{}{suffix}", "0".repeat(24));
    }
    let point = if number.contains('.') { "" } else { "." };
    format!("{number}{point}{}{suffix}", "0".repeat(24))
}

/// Texts that a reader of the grammar would not think of.
fn odd() -> Vec<String> {
    let odd = [
        "",
        "+",
        "-",
        ".",
        "-.",
        "..",
        "1.",
        ".1",
        "1..2",
        "+-1",
        "Ki",
        "Ei",
        ".Ti",
        ".Pi",
        "m",
        "E",
        "e",
        "e3",
        "e-9",
        "e-10",
        "1e",
        "1E",
        "1Ee",
        "1e+",
        "1e+3",
        "1e-3",
        "1E3",
        "1ee3",
        "1e3m",
        "1mm",
        "1iK",
        "1KI",
        "1ki",
        "1K",
        "1Gi5",
        "1G5",
        "1m-3",
        " 1",
        "1 ",
        "1 Gi",
        "١",
        "0x1",
        "1_000",
        "1,5",
        "NaN",
        "inf",
        "Inf",
        "0e-400",
        "0e400",
        "1e-400",
        "-0.0000000001",
        "007",
        "+007",
        "-0",
        "1000",
        "1000m",
        "1024Ki",
        "1000Ki",
        "0.1Ki",
        "0.0001Ki",
        "1.1Gi",
        "0.0009765625Ki",
        "-1.5Gi",
        "1023.999999999Ki",
        "999999999999999999",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775807",
        "9E",
        "10E",
        "7.999999999999999999Ei",
        "8Ei",
        "1000E",
        "0.5n",
        "1.0000000001",
        "1.500",
        "100e-2",
        "12e2",
        "1e18",
        "1e19",
    ];
    odd.into_iter().map(str::to_owned).collect()
}

/// Generated texts, the same ones in every run.
fn texts() -> impl Iterator<Item = String> {
    let suffix = prop_oneof![
        6 => prop::sample::select(vec![
            "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
        ])
        .prop_map(str::to_owned),
        2 => (-40_i32..30).prop_map(|exponent| format!("e{exponent}")),
        1 => "[eE][+-]?[0-9]{0,3}",
        1 => "[eEinumkKMGTP]{0,2}[+-]?[0-9]{0,1}",
    ];
    let number = prop_oneof![
        4 => "[0-9]{1,6}",
        3 => "[0-9]{0,6}\\.[0-9]{0,12}",
        1 => "[0-9]{15,25}",
        1 => "0{0,3}[0-9]{0,30}\\.[0-9]{0,40}",
        1 => "[1-9]0{3,12}",
        1 => (0_u64..1 << 40).prop_map(|n| (n * 1024).to_string()),
        1 => "[0-9.]{0,8}",
    ];
    let text = prop_oneof![
        12 => ("[+-]?", number, suffix).prop_map(|(sign, number, suffix)| format!("{sign}{number}{suffix}")),
        1 => "[-+0-9.eEinumkKMGTP]{1,10}",
    ];
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    std::iter::repeat_with(move || text.new_tree(&mut runner).map(|tree| tree.current())).map_while(Result::ok)
}
