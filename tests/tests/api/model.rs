//! The API model answers as the real API server does.

use agents_tests::apimodel::{
    NAMESPACE, World,
    conformance::{Observation, conformance},
};
use anyhow::{Result, ensure};
use xtask::cluster::Cluster;

use super::stage::play;

/// Every conformance case gets the same answers from both.
pub(crate) fn the_model_answers_as_the_server_does(cluster: &Cluster) -> Result<()> {
    let mut differences = Vec::new();
    for case in conformance() {
        let name = case.name;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let modelled = runtime.block_on(async { case.check(World::new(7).admin(), NAMESPACE).await });
        play(cluster, &name.replace('_', "-"), async |stage| {
            // The namespace's own objects come a moment after it.
            stage.until("the first ConfigMap", || stage.find("configmaps", "kube-root-ca.crt")).await?;
            let real = case.check(stage.client.clone(), &stage.namespace).await;
            ensure!(!real.is_empty(), "{name} asks nothing");
            differences.extend(compare(name, &real, &modelled));
            Ok(())
        })?;
    }
    ensure!(differences.is_empty(), "the model differs:\n{}", differences.join("\n"));
    Ok(())
}

fn compare(case: &str, real: &[Observation], modelled: &[Observation]) -> Vec<String> {
    let steps = real.len().max(modelled.len());
    (0..steps)
        .filter(|n| real.get(*n) != modelled.get(*n))
        .map(|n| format!("{case}\n    real:  {:?}\n    model: {:?}", real.get(n), modelled.get(n)))
        .collect()
}
