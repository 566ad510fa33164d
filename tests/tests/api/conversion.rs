//! Two versions of one kind from Rust types: what is written in one is read in the other, and the older one can end.
//!
//! The kind is of these tests alone; `docs/dev/conversion.md` says what follows for a real one.

use agents_core::api::{Column, Kind};
use agents_kube::{Object, crd};
use anyhow::{Context as _, Result, ensure};
use http::Method;
use kube::{Api, api::PostParams};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xtask::cluster::Cluster;

use super::{
    stage::{Stage, play},
    wire::ask,
};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Alpha;
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Beta;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct AlphaSpec {
    /// What is in it.
    #[schemars(length(max = 64))]
    content: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct BetaSpec {
    /// What is in it.
    #[schemars(length(max = 64))]
    content: String,
    /// Who gets it; new in this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    receiver: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
struct ParcelStatus {
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    place: Option<String>,
}

macro_rules! parcel {
    ($version:ty, $name:literal, $spec:ty) => {
        impl Kind for $version {
            const GROUP: &'static str = "conversion.tests.proompteng.ai";
            const VERSION: &'static str = $name;
            const KIND: &'static str = "Parcel";
            const PLURAL: &'static str = "parcels";
            const SINGULAR: &'static str = "parcel";
            const SHORT_NAMES: &'static [&'static str] = &[];
            const DESCRIPTION: &'static str = "Something that is sent.";
            const COLUMNS: &'static [Column] = &[];
            const EXAMPLE: &'static str = "";
            type Spec = $spec;
            type Status = ParcelStatus;
        }
    };
}
parcel!(Alpha, "v1alpha1", AlphaSpec);
parcel!(Beta, "v1beta1", BetaSpec);

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/parcels.conversion.tests.proompteng.ai";

/// An object written in one version is read in the other, stored in the newer one from then on, and outlives the older.
pub(crate) fn two_versions_are_one_object(cluster: &Cluster) -> Result<()> {
    play(cluster, "conversion", async |stage| {
        let alpha: Api<Object<Alpha>> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let beta: Api<Object<Beta>> = Api::namespaced(stage.client.clone(), &stage.namespace);
        let create = PostParams::default();

        define(stage, &[crd::version::<Alpha>(true)]).await?;
        let old = Object::<Alpha>::new("old", AlphaSpec { content: "books".to_owned() });
        stage.until("the first version", async || Ok(alpha.create(&create, &old).await.ok())).await?;

        define(stage, &[crd::version::<Alpha>(false), crd::version::<Beta>(true)]).await?;
        let read = stage.until("the second version", async || Ok(beta.get_opt("old").await.unwrap_or(None))).await?;
        ensure!(read.spec == BetaSpec { content: "books".to_owned(), receiver: None }, "{read:?}");

        let spec = BetaSpec { content: "shoes".to_owned(), receiver: Some("ann".to_owned()) };
        // The server knows a new version before it stores in it.
        let new = Object::<Beta>::new("new", spec.clone());
        stage.until("storing in the second version", async || stored(stage).await).await?;
        beta.create(&create, &new).await?;
        let seen = alpha.get("new").await?;
        ensure!(seen.spec == AlphaSpec { content: "shoes".to_owned() }, "{seen:?}");
        ensure!(beta.get("new").await?.spec == spec, "reading in another version changes nothing");

        // Who writes through the version that does not know a field takes it away, as any client of old types would.
        alpha.replace("new", &create, &seen).await?;
        ensure!(beta.get("new").await?.spec.receiver.is_none(), "the older version cannot keep what it does not know");

        // The older version ends: everything is written once more, then nothing stored is of it.
        for object in beta.list(&kube::api::ListParams::default()).await? {
            let name = object.metadata.name.clone().context("a name")?;
            beta.replace(&name, &create, &object).await?;
        }
        let mut definition = ask(stage, Method::GET, DEFINITION, None).await?.body;
        definition["status"]["storedVersions"] = json!(["v1beta1"]);
        let answer = ask(stage, Method::PUT, &format!("{DEFINITION}/status"), Some(&definition)).await?;
        ensure!(answer.code == 200, "{answer:#?}");
        define(stage, &[crd::version::<Beta>(true)]).await?;
        stage
            .until("the end of the first version", async || {
                Ok(matches!(alpha.get("old").await, Err(kube::Error::Api(status)) if status.code == 404).then_some(()))
            })
            .await?;
        ensure!(beta.get("old").await?.spec.content == "books", "it outlives the version it was written in");
        let removed = ask(stage, Method::DELETE, DEFINITION, None).await?;
        ensure!(removed.code == 200, "{removed:#?}");
        Ok(())
    })
}

/// Whether objects are stored in the second version.
async fn stored(stage: &Stage<'_>) -> Result<Option<()>> {
    let definition = ask(stage, Method::GET, DEFINITION, None).await?.body;
    let stored = definition["status"]["storedVersions"].as_array();
    Ok(stored.is_some_and(|stored| stored.iter().any(|version| version == "v1beta1")).then_some(()))
}

/// Applies the definition that serves `versions`.
async fn define(stage: &Stage<'_>, versions: &[Value]) -> Result<()> {
    let mut definition = crd::definition::<Beta>(versions);
    // Other cases list the whole category meanwhile, and this kind comes and goes.
    definition["spec"]["names"]["categories"] = json!([]);
    let text = definition.to_string();
    let applied = ["apply", "--server-side", "--force-conflicts", "--filename=-"];
    tokio::task::block_in_place(|| stage.cluster.kubectl_with_input(&applied, &text))?;
    Ok(())
}
