//! The API model itself: what controllers rely on and trip over behaves as the real thing does.

use std::time::Duration;

use agents_core::report::Report;
use agents_kube::Calls;
use agents_tests::apimodel::{
    ATTEMPT_LABEL, Broken, CrashAt, CrashPoint, Fault, NAMESPACE, Outcome, RUN_UID_LABEL, Rule, Settled, Verb,
    WatchFault, WatchRule, When, World, conformance,
};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher,
};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn runs(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("agents.proompteng.ai", "v1alpha1", "AgentRun");
    Api::namespaced_with(client, NAMESPACE, &ApiResource::from_gvk_with_plural(&kind, "agentruns"))
}

fn apply_run(world: &World, name: &str) -> String {
    let stored = world.apply(&format!(
        "apiVersion: agents.proompteng.ai/v1alpha1\nkind: AgentRun\nmetadata: {{name: {name}}}\nspec: {{text: hello}}\n"
    ));
    stored[0]["metadata"]["uid"].as_str().expect("a stored object has a uid").to_owned()
}

async fn set_phase(client: &Client, name: &str, phase: &str) {
    let status = json!({"status": {"phase": phase, "blockedBy": [{"reason": "Test"}]}});
    runs(client.clone())
        .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .expect("the status is stored");
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "1"}})).expect("a config map")
}

fn job(name: &str, uid: &str, attempt: i64) -> Job {
    let labels = json!({RUN_UID_LABEL: uid, ATTEMPT_LABEL: attempt.to_string()});
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "activeDeadlineSeconds": 600, "template": {
            "metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "i"}]},
        }},
    }))
    .expect("a job")
}

fn code(error: &Error) -> (u16, String) {
    match error {
        Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the server: {other}"),
    }
}

/// What the world's Job ended as, with its pod's exit code and report.
async fn play(outcome: Outcome) -> (World, String, Option<i64>, Option<Report>) {
    let world = World::new(1);
    world.run_actors();
    let uid = apply_run(&world, "r");
    world.outcome("r", outcome);
    let jobs: Api<Job> = Api::default_namespaced(world.client("c"));
    jobs.create(&PostParams::default(), &job("j", &uid, 1)).await.expect("the job is stored");
    let ended = |world: &World| {
        let job = world.object("jobs", "j")?;
        let conditions = job["status"]["conditions"].as_array()?.clone();
        let last = conditions.iter().find(|c| c["type"] == "Complete" || c["type"] == "Failed")?;
        Some(format!("{} {}", last["type"].as_str()?, last["reason"].as_str()?))
    };
    assert!(world.until(900 * SECOND, |world| ended(world).is_some()).await, "the job ends");
    let pod = world.objects("pods").pop().unwrap_or_default();
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let report = terminated["message"].as_str().and_then(|text| serde_json::from_str(text).ok());
    let how = ended(&world).unwrap_or_default();
    (world, how, terminated["exitCode"].as_i64(), report)
}

#[tokio::test(start_paused = true)]
async fn every_conformance_case_is_answered_as_recorded_of_the_real_server() {
    let mut lines = Vec::new();
    for case in conformance::conformance() {
        let world = World::new(7);
        for seen in case.check(world.admin(), NAMESPACE).await {
            lines.push(format!("{} | {} | {}", case.name, seen.step, seen.answer));
        }
    }
    insta::assert_snapshot!("conformance", lines.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn conflicting_writes_are_refused_and_a_deleted_object_is_gone() {
    let world = World::new(1);
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("c"));
    let first = maps.create(&PostParams::default(), &config_map("a")).await.expect("stored");
    let again = maps.create(&PostParams::default(), &config_map("a")).await.expect_err("the name is taken");
    assert_eq!(code(&again), (409, "AlreadyExists".into()));
    let mut next = first.clone();
    next.data.get_or_insert_default().insert("b".into(), "2".into());
    maps.replace("a", &PostParams::default(), &next).await.expect("the version is right");
    let stale = maps.replace("a", &PostParams::default(), &next).await.expect_err("the version is old");
    assert_eq!(code(&stale), (409, "Conflict".into()));
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert!(maps.get_opt("a").await.expect("an answer").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_selector_watch_sees_a_leaving_object_as_deleted_in_its_previous_state() {
    let world = World::new(1);
    let client = world.client("c");
    apply_run(&world, "r");
    set_phase(&client, "r", "Running").await;
    let api = runs(client.clone());
    let version = api.list_metadata(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let params = WatchParams::default().fields("status.phase!=Succeeded").timeout(10);
    let stream = api.watch(&params, &version.expect("a version")).await.expect("a watch");
    set_phase(&client, "r", "Succeeded").await;
    set_phase(&client, "r", "Succeeded").await;
    api.delete("r", &DeleteParams::default()).await.expect("deleted");
    let events: Vec<WatchEvent<DynamicObject>> = stream.try_collect().await.expect("the watch ends in order");
    let [WatchEvent::Deleted(left)] = events.as_slice() else {
        panic!("one DELETED and nothing of what follows: {events:?}");
    };
    assert_eq!(left.data["status"]["phase"], "Running", "the previous state");
    assert!(left.metadata.deletion_timestamp.is_none());
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_on_time_and_carry_a_version_that_can_be_watched_from() {
    let world = World::new(1);
    world.configure(|settings| settings.bookmarks = 10 * SECOND);
    let client = world.client("c");
    apply_run(&world, "r");
    let stream = runs(client.clone()).watch(&WatchParams::default().timeout(35), "1001").await.expect("a watch");
    // Another resource moves on; the idle one's bookmarks follow by etcd's progress.
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    tokio::time::sleep(2 * SECOND).await;
    let other = maps.create(&PostParams::default(), &config_map("a")).await.expect("stored");
    let events: Vec<WatchEvent<DynamicObject>> = stream.try_collect().await.expect("the watch ends in order");
    let versions: Vec<String> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Bookmark(mark) => mark.metadata.resource_version.clone(),
            other => panic!("only bookmarks: {other:?}"),
        })
        .collect();
    assert_eq!(versions, vec![other.metadata.resource_version.expect("a version"); 3]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_version_is_gone_in_the_stream_or_by_script_at_the_start() {
    let world = World::new(1);
    let api = runs(world.client("c"));
    apply_run(&world, "r");
    world.compact();
    let stream = api.watch(&WatchParams::default(), "1001").await.expect("200 first");
    let events: Vec<WatchEvent<DynamicObject>> = stream.try_collect().await.expect("the watch ends in order");
    let [WatchEvent::Error(gone)] = events.as_slice() else {
        panic!("one ERROR: {events:?}");
    };
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    world.faults(|faults| faults.rule(Rule::new(When::any().verb(Verb::Watch), Fault::Reject(410))));
    let refused = api.watch(&WatchParams::default(), "1001").await.err().expect("410 at once");
    assert_eq!(code(&refused), (410, "Expired".into()));
}

#[tokio::test(start_paused = true)]
async fn kubes_own_watcher_lists_pages_survives_gone_and_sees_every_change() {
    let world = World::new(1);
    for n in 0..7 {
        apply_run(&world, &format!("r{n}"));
    }
    world.faults(|faults| {
        faults.watch_rule(WatchRule { resource: "agentruns", nth: 1, times: 1, fault: WatchFault::Gone });
        faults.watch_rule(WatchRule { resource: "agentruns", nth: 3, times: 1, fault: WatchFault::Disconnect });
    });
    let stream = watcher(runs(world.client("c")), watcher::Config::default().page_size(3));
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let reader = tokio::spawn({
        let seen = seen.clone();
        async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::InitApply(run) | watcher::Event::Apply(run)) => {
                        let phase = run.data["status"]["phase"].as_str().unwrap_or_default().to_owned();
                        seen.lock().expect("no panic").insert(run.metadata.name.unwrap_or_default(), phase);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(SECOND).await,
                }
            }
        }
    });
    let client = world.admin();
    for n in 0..7 {
        tokio::time::sleep(5 * SECOND).await;
        set_phase(&client, &format!("r{n}"), "Running").await;
    }
    tokio::time::sleep(30 * SECOND).await;
    reader.abort();
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen.len(), 7);
    assert!(seen.values().all(|phase| phase == "Running"), "{seen:?}");
    assert!(world.log().of("agentruns").lists().len() >= 6, "paged twice: {:?}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_continue_token_expires_with_its_version() {
    let world = World::new(1);
    for n in 0..4 {
        apply_run(&world, &format!("r{n}"));
    }
    let api = runs(world.client("c"));
    let first = api.list(&ListParams::default().limit(2)).await.expect("a page");
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(2)));
    let token = first.metadata.continue_.expect("more");
    let second = api.list(&ListParams::default().limit(2).continue_token(&token)).await.expect("a page");
    assert_eq!(second.metadata.continue_.unwrap_or_default(), "");
    world.compact();
    let expired = api.list(&ListParams::default().continue_token(&token)).await.expect_err("too old");
    assert_eq!(code(&expired), (410, "Expired".into()));
}

#[tokio::test(start_paused = true)]
async fn a_lagging_cache_serves_old_lists_and_late_events_but_consistent_reads() {
    let world = World::new(1);
    world.faults(|faults| faults.lag("configmaps", 30 * SECOND));
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("c"));
    let made = maps.create(&PostParams::default(), &config_map("a")).await.expect("stored");
    let cached = maps.list(&ListParams::default().match_any()).await.expect("a list");
    assert!(cached.items.is_empty(), "the cache has not seen it");
    assert_eq!(maps.list(&ListParams::default()).await.expect("a list").items.len(), 1);
    let params = WatchParams::default().timeout(60);
    let version: u64 = made.metadata.resource_version.expect("a version").parse().expect("a number");
    let stream = maps.watch(&params, &(version - 1).to_string()).await.expect("a watch");
    let started = world.clock().boot();
    let mut stream = std::pin::pin!(stream);
    stream.try_next().await.expect("an event").expect("an event");
    assert_eq!(world.clock().boot() - started, 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn events_are_dropped_doubled_and_swapped_by_count() {
    let world = World::new(1);
    let client = world.client("c");
    for (nth, fault) in [(1, WatchFault::Drop), (2, WatchFault::Duplicate), (3, WatchFault::SwapWithNext)] {
        world.faults(|faults| faults.watch_rule(WatchRule { resource: "configmaps", nth, times: 1, fault }));
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let stream = maps.watch(&WatchParams::default().timeout(5), "1000").await.expect("a watch");
    for name in ["a", "b", "c", "d"] {
        maps.create(&PostParams::default(), &config_map(name)).await.expect("stored");
    }
    let events: Vec<WatchEvent<ConfigMap>> = stream.try_collect().await.expect("the watch ends in order");
    let names: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(map) => map.metadata.name.as_deref().unwrap_or_default(),
            other => panic!("only creations: {other:?}"),
        })
        .collect();
    assert_eq!(names, ["b", "b", "d", "c"]);
}

#[tokio::test(start_paused = true)]
async fn outcomes_become_jobs_pods_and_reports() {
    let after = 5 * SECOND;
    let cases = [
        (Outcome::Succeed { after }, "Complete CompletionsReached", Some(0), true),
        (Outcome::Exit { code: 3, after }, "Failed BackoffLimitExceeded", Some(3), true),
        (Outcome::Signal { signal: 9, after }, "Failed BackoffLimitExceeded", Some(137), true),
        (Outcome::NoReport { code: 0, after }, "Complete CompletionsReached", Some(0), false),
        (Outcome::OutOfMemory { after }, "Failed BackoffLimitExceeded", Some(137), false),
        (Outcome::Evicted { after }, "Failed BackoffLimitExceeded", None, false),
        (Outcome::NodeLost { after }, "Failed BackoffLimitExceeded", None, false),
        // These wait until the Job's deadline ends them.
        (Outcome::Hang, "Failed DeadlineExceeded", None, false),
        (Outcome::ImagePullFailure, "Failed DeadlineExceeded", None, false),
        (Outcome::Unschedulable, "Failed DeadlineExceeded", None, false),
    ];
    for (outcome, expected, exit, reported) in cases {
        let (world, how, code, report) = play(outcome.clone()).await;
        assert_eq!((how.as_str(), code), (expected, exit), "{outcome:?}");
        assert_eq!(report.is_some(), reported, "{outcome:?}");
        let uid = world.object("agentruns", "r").expect("the run")["metadata"]["uid"].as_str().expect("uid").to_owned();
        if let Some(report) = report {
            assert_eq!((report.run_uid, report.attempt), (uid.clone(), 1), "{outcome:?}");
        }
        let started = u32::from(!matches!(outcome, Outcome::ImagePullFailure | Outcome::Unschedulable));
        assert_eq!(world.executions().get(&(uid, 1)).copied().unwrap_or(0), started, "{outcome:?}");
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_collected_after_its_time_with_its_pod() {
    let (world, _, _, _) = play(Outcome::default()).await;
    let ended = world.clock().boot();
    assert!(world.until(7200 * SECOND, |world| world.objects("jobs").is_empty()).await);
    let kept = world.clock().boot() - ended;
    assert!(kept >= 3599 * SECOND && kept < 3602 * SECOND, "{kept:?}");
    assert!(world.objects("pods").is_empty(), "foreground: the pod went first");
    let Settled::Since(since) = world.settle(600 * SECOND).await else {
        panic!("nothing is left to do");
    };
    assert!(world.log().writes().since(since + SECOND).is_empty());
}

#[tokio::test(start_paused = true)]
async fn foreground_deletion_ends_the_pod_before_the_job() {
    for (outcome, takes) in [(Outcome::Hang, 1), (Outcome::IgnoreTerm, 30)] {
        let world = World::new(1);
        world.run_actors();
        let uid = apply_run(&world, "r");
        world.outcome("r", outcome);
        let jobs: Api<Job> = Api::default_namespaced(world.client("c"));
        jobs.create(&PostParams::default(), &job("j", &uid, 1)).await.expect("stored");
        let running = |world: &World| world.objects("pods").iter().any(|pod| pod["status"]["phase"] == "Running");
        assert!(world.until(60 * SECOND, running).await);
        let asked = world.clock().boot();
        jobs.delete("j", &DeleteParams::foreground()).await.expect("deleted");
        assert!(jobs.get_opt("j").await.expect("an answer").is_some(), "it waits for its pod");
        assert!(world.until(120 * SECOND, |world| world.objects("jobs").is_empty()).await);
        assert!(world.objects("pods").is_empty());
        assert_eq!((world.clock().boot() - asked).as_secs(), takes);
        world.check();
    }
}

#[tokio::test(start_paused = true)]
async fn an_owners_deletion_takes_its_dependents_and_orphaning_spares_them() {
    let world = World::new(1);
    world.configure(|settings| settings.garbage = false);
    let client = world.client("c");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let owned = |name: &str, owner: &str, uid: &str| {
        let mut map = config_map(name);
        map.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "name": owner, "uid": uid,
        }]))
        .expect("owner references");
        map
    };
    for (name, orphan) in [("taken", false), ("spared", true)] {
        let uid = apply_run(&world, name);
        maps.create(&PostParams::default(), &owned(name, name, &uid)).await.expect("stored");
        let params = if orphan { DeleteParams::orphan() } else { DeleteParams::background() };
        runs(client.clone()).delete(name, &params).await.expect("deleted");
    }
    assert!(maps.get_opt("taken").await.expect("an answer").is_some(), "collection is a step of its own");
    while world.collect_garbage() {}
    assert!(maps.get_opt("taken").await.expect("an answer").is_none());
    let spared = maps.get("spared").await.expect("still there");
    assert!(spared.metadata.owner_references.unwrap_or_default().is_empty());
    assert!(world.object("agentruns", "spared").is_none(), "its finalizer is gone with the reference");
}

#[tokio::test(start_paused = true)]
async fn faults_before_and_after_the_commit_leave_what_they_say() {
    let cases: [(Fault, bool); 6] = [
        (Fault::Reject(503), false),
        (Fault::DropBeforeCommit, false),
        (Fault::CommitThenDrop, true),
        (Fault::CommitThenReject(504), true),
        (Fault::Blackhole, false),
        (Fault::CommitThenBlackhole, true),
    ];
    for (fault, stored) in cases {
        let world = World::new(1);
        world.faults(|faults| faults.rule(Rule::new(When::effects().on("configmaps"), fault.clone())));
        let maps: Api<ConfigMap> = Api::default_namespaced(world.client("c"));
        let answer = tokio::time::timeout(10 * SECOND, maps.create(&PostParams::default(), &config_map("a"))).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{fault:?} is not a success");
        assert_eq!(world.object("configmaps", "a").is_some(), stored, "{fault:?}");
        assert_eq!(world.faults(|faults| faults.struck()), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_lands_after_its_sender_has_given_up() {
    let world = World::new(1);
    world.faults(|faults| faults.rule(Rule::new(When::effects(), Fault::CommitLate(20 * SECOND))));
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("c"));
    maps.create(&PostParams::default(), &config_map("a")).await.expect_err("the connection broke");
    assert!(world.object("configmaps", "a").is_none());
    assert!(world.until(30 * SECOND, |world| world.object("configmaps", "a").is_some()).await);
}

/// A controller in miniature: makes three config maps one after the other, whatever is there already.
async fn three_maps(calls: Calls) {
    let maps: Api<ConfigMap> = Api::default_namespaced(calls.client().clone());
    for name in ["a", "b", "c"] {
        match maps.create(&PostParams::default(), &config_map(name)).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.code == 409 => {}
            Err(_) => return,
        }
    }
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_stops_the_client_exactly_there_and_the_next_one_goes_on() {
    for point in CrashPoint::all(3) {
        let world = World::new(1);
        world.faults(|faults| faults.rule(point.rule()));
        let _controller = world.supervise("c", three_maps);
        tokio::time::sleep(SECOND / 2).await;
        let expected = point.write - usize::from(point.at == CrashAt::Before);
        assert_eq!(world.objects("configmaps").len(), expected, "{point:?}");
        tokio::time::sleep(SECOND).await;
        assert_eq!(world.objects("configmaps").len(), 3, "{point:?}");
        assert_eq!(world.log().writes().len(), point.write + 3, "{point:?}: the first life's and the second's");
    }
}

#[tokio::test(start_paused = true)]
async fn the_judge_sees_each_kind_of_broken_promise() {
    let world = World::new(1);
    world.run_actors();
    let client = world.client("c");
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let uid = apply_run(&world, "r");
    world.check();
    for name in ["j1", "j2"] {
        jobs.create(&PostParams::default(), &job(name, &uid, 1)).await.expect("stored");
    }
    tokio::time::sleep(10 * SECOND).await;
    set_phase(&client, "r", "Succeeded").await;
    set_phase(&client, "r", "Failed").await;
    apply_run(&world, "s");
    let waiting = json!({"status": {"phase": "Pending", "observedGeneration": 1}});
    runs(client.clone()).patch_status("s", &PatchParams::default(), &Patch::Merge(&waiting)).await.expect("stored");
    world.canary("hunter2");
    let mut leak = config_map("leak");
    leak.data.get_or_insert_default().insert("k".into(), "x hunter2 y".into());
    Api::<ConfigMap>::default_namespaced(client.clone()).create(&PostParams::default(), &leak).await.expect("stored");
    // Refused, and sent all the same.
    let mut again = config_map("leak");
    again.data.get_or_insert_default().insert("k".into(), "x aHVudGVyMg== y".into());
    Api::<ConfigMap>::default_namespaced(client.clone())
        .create(&PostParams::default(), &again)
        .await
        .expect_err("taken");
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    secrets.get_opt("any").await.expect("an answer");
    let key = (uid, 1);
    let broken: Vec<Broken> = world.violations().into_iter().map(|violation| violation.broken).collect();
    assert_eq!(
        broken,
        [
            Broken::SubmittedAgain(key.clone()),
            Broken::TwoLiveSubmissions(key.clone()),
            Broken::ExecutedAgain(key),
            Broken::PhaseLeft("r".into(), "Succeeded".into(), "Failed".into()),
            Broken::WaitsWithoutReason("s".into()),
            Broken::CanarySent("Create /api/v1/namespaces/default/configmaps".into()),
            Broken::CanaryStored("configmaps/leak".into()),
            Broken::CanarySent("Create /api/v1/namespaces/default/configmaps".into()),
            Broken::SecretAsked("/api/v1/namespaces/default/secrets/any".into()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn one_seed_is_one_world_and_clocks_jump_alone() {
    let story = |seed| async move {
        let world = World::new(seed);
        world.run_actors();
        let uid = apply_run(&world, "r");
        let jobs: Api<Job> = Api::default_namespaced(world.client("c"));
        jobs.create(&PostParams::default(), &job("j", &uid, 1)).await.expect("stored");
        tokio::time::sleep(60 * SECOND).await;
        world.history().iter().map(|commit| commit.object.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(story(5).await, story(5).await);
    assert_ne!(story(5).await, story(6).await);
    let world = World::new(1);
    let (before, boot) = (world.server_clock().wall(), world.clock().boot());
    world.clock().jump(jiff::SignedDuration::from_hours(-1));
    assert_eq!(world.server_clock().wall(), before);
    assert_eq!(world.clock().wall(), before - jiff::SignedDuration::from_hours(1));
    assert_eq!(world.clock().boot(), boot);
}

#[tokio::test(start_paused = true)]
async fn pods_can_be_listed_by_their_jobs_label() {
    let (world, _, _, _) = play(Outcome::default()).await;
    let pods: Api<Pod> = Api::default_namespaced(world.client("c"));
    let found = pods.list(&ListParams::default().labels("batch.kubernetes.io/job-name=j")).await.expect("a list");
    assert_eq!(found.items.len(), 1);
    assert!(pods.list(&ListParams::default().labels("job-name=k")).await.expect("a list").items.is_empty());
}
