//! The adapter against an API server in memory that knows names, uids, owners and nothing else.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use agents_core::runtime::Owner;
use agents_runtime::adapter::Class;
use k8s_openapi::api::batch::v1::Job;
use serde_json::json;

use super::*;
use crate::runtime::{
    Fingerprint, PodView,
    manifest::tests::{large_submission, submission},
};

/// What a fake does before it answers the next create of a Job.
#[derive(Debug)]
enum Before {
    /// Refuses.
    Fail(ApiError),
    /// Commits, and the answer is lost.
    LoseAnswer,
    /// Another controller's create of the same Job comes first.
    LoseRace,
}

#[derive(Debug, Default)]
struct World {
    jobs: BTreeMap<String, JobView>,
    config_maps: BTreeMap<String, ConfigMapView>,
    pods: Vec<PodView>,
    script: VecDeque<Before>,
    calls: Vec<String>,
    created: u32,
    /// What admission puts before the images of Jobs.
    mirror: &'static str,
}

impl World {
    fn admitted(&self, job: &Job) -> serde_json::Value {
        let mut object = serde_json::to_value(job).expect("a Job has a JSON form");
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        for container in containers.as_array_mut().expect("it has some").iter_mut().filter(|_| !self.mirror.is_empty())
        {
            container["image"] = json!(format!("{}{}", self.mirror, container["image"].as_str().unwrap_or_default()));
        }
        object
    }

    fn create(&mut self, job: &Job) -> Result<JobView, ApiError> {
        let mut object = self.admitted(job);
        let name = object["metadata"]["name"].as_str().expect("it is named").to_owned();
        if self.jobs.contains_key(&name) {
            return Err(refused(ApiErrorKind::AlreadyExists, "jobs.batch already exists"));
        }
        self.created += 1;
        object["metadata"]["uid"] = json!(format!("job-{}", self.created));
        object["metadata"]["creationTimestamp"] = json!("2026-01-05T10:00:00Z");
        let view: JobView = serde_json::from_value(object).expect("what is created reads back");
        self.jobs.insert(name, view.clone());
        Ok(view)
    }
}

#[derive(Debug, Default)]
struct Fake(Mutex<World>);

impl Fake {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds the lock")
    }
}

#[async_trait]
impl JobApi for Fake {
    async fn create_job(&self, _: &str, job: &Job) -> Result<JobView, ApiError> {
        let mut world = self.world();
        world.calls.push("create job".into());
        match world.script.pop_front() {
            Some(Before::Fail(error)) => Err(error),
            Some(Before::LoseAnswer) => {
                world.create(job)?;
                Err(refused(ApiErrorKind::Ambiguous, "the API server did not answer in time"))
            }
            Some(Before::LoseRace) => {
                world.create(job)?;
                world.create(job)
            }
            None => world.create(job),
        }
    }

    async fn would_create_job(&self, _: &str, job: &Job) -> Result<JobView, ApiError> {
        let mut world = self.world();
        world.calls.push("try to create job".into());
        let mut object = world.admitted(job);
        assert!(object["metadata"]["name"].is_null(), "its own name is taken");
        object["metadata"]["name"] = json!("generated");
        object["metadata"]["uid"] = json!("none");
        object["metadata"]["creationTimestamp"] = json!("2026-01-05T10:00:00Z");
        Ok(serde_json::from_value(object).expect("what would be created reads back"))
    }

    async fn note_fingerprint(&self, _: &str, name: &str, uid: &str, pod: Fingerprint) -> Result<JobView, ApiError> {
        let mut world = self.world();
        world.calls.push(format!("note the fingerprint of {uid}"));
        let Some(job) = world.jobs.get_mut(name) else {
            return Err(refused(ApiErrorKind::NotFound, "jobs.batch not found"));
        };
        job.marks.made = Some(pod);
        Ok(job.clone())
    }

    async fn get_job(&self, _: &str, name: &str) -> Result<Option<JobView>, ApiError> {
        let mut world = self.world();
        world.calls.push("get job".into());
        Ok(world.jobs.get(name).cloned())
    }

    async fn pods_of_job(&self, _: &str, job_uid: &str) -> Result<Vec<PodView>, ApiError> {
        let mut world = self.world();
        world.calls.push(format!("list pods of {job_uid}"));
        Ok(world.pods.iter().filter(|pod| pod.job_uid.as_deref() == Some(job_uid)).cloned().collect())
    }

    async fn set_job_ttl(&self, _: &str, name: &str, uid: &str, ttl_seconds: Option<i32>) -> Result<JobView, ApiError> {
        let mut world = self.world();
        world.calls.push(format!("set the ttl of {uid} to {ttl_seconds:?}"));
        let Some(job) = world.jobs.get_mut(name) else {
            return Err(refused(ApiErrorKind::NotFound, "jobs.batch not found"));
        };
        job.kept = ttl_seconds.is_none();
        Ok(job.clone())
    }

    async fn delete_job(&self, _: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let mut world = self.world();
        world.calls.push(format!("delete {uid}"));
        match world.jobs.get_mut(name) {
            None => Err(refused(ApiErrorKind::NotFound, "jobs.batch not found")),
            Some(job) if job.uid != uid => Err(refused(ApiErrorKind::Conflict, "the UID in the precondition differs")),
            Some(job) => {
                job.deleting = true;
                Ok(())
            }
        }
    }

    async fn delete_pod(&self, _: &str, name: &str, _: &str, grace_seconds: u32) -> Result<(), ApiError> {
        self.world().calls.push(format!("delete pod {name} within {grace_seconds} s"));
        Ok(())
    }

    async fn create_config_map(&self, _: &str, config_map: &ConfigMap) -> Result<(), ApiError> {
        let mut world = self.world();
        world.calls.push("create config map".into());
        let mut object = serde_json::to_value(config_map).expect("it has a JSON form");
        let name = object["metadata"]["name"].as_str().expect("it is named").to_owned();
        if world.config_maps.contains_key(&name) {
            return Err(refused(ApiErrorKind::AlreadyExists, "configmaps already exists"));
        }
        object["metadata"]["uid"] = json!("map-1");
        object["metadata"]["creationTimestamp"] = json!("2026-01-05T10:00:00Z");
        world.config_maps.insert(name, serde_json::from_value(object).expect("what is created reads back"));
        Ok(())
    }

    async fn get_config_map(&self, _: &str, name: &str) -> Result<Option<ConfigMapView>, ApiError> {
        Ok(self.world().config_maps.get(name).cloned())
    }
}

fn refused(kind: ApiErrorKind, message: &str) -> ApiError {
    ApiError::new("try", kind, message)
}

fn adapter() -> (Arc<Fake>, JobAdapter) {
    let fake = Arc::new(Fake::default());
    (fake.clone(), JobAdapter::new(fake))
}

fn stranger() -> OwnerView {
    OwnerView { api_version: "batch/v1".into(), kind: "CronJob".into(), name: "backup".into(), uid: "u-2".into() }
}

#[tokio::test]
async fn a_happy_submission_is_one_call_and_a_second_one_gives_the_same_reference() {
    let (fake, adapter) = adapter();
    let first = adapter.submit(&submission()).await.expect("it is accepted");
    assert_eq!(fake.world().calls, ["create job"]);
    let second = adapter.submit(&submission()).await.expect("it is adopted");
    assert_eq!(first, second);
    assert_eq!(first.uid.as_deref(), Some("job-1"));
    assert_eq!(fake.world().created, 1);
}

/// Clusters rewrite images to a mirror of theirs as Jobs are created.
#[tokio::test]
async fn what_admission_made_of_a_job_is_adopted_and_ended() {
    let (fake, adapter) = adapter();
    fake.world().mirror = "mirror.example/";
    let first = adapter.submit(&submission()).await.expect("it is accepted");
    assert_eq!(fake.world().calls, ["create job", "note the fingerprint of job-1"]);
    assert_eq!(adapter.submit(&submission()).await.expect("it is adopted"), first);
    assert_eq!(fake.world().created, 1);
    adapter.cancel(&RuntimeRef { uid: None, ..first }, Grace(Duration::from_secs(5))).await.expect("it is taken");
    assert!(fake.world().jobs.values().all(|job| job.deleting));
}

/// The provider was mended after its Job was refused: the same attempt has another spec, and no other name.
#[tokio::test]
async fn a_spec_that_changed_after_its_job_was_refused_is_not_in_its_own_way() {
    let (fake, adapter) = adapter();
    fake.world().script.push_back(Before::Fail(refused(ApiErrorKind::Denied, "denied by a policy")));
    let mut submission = large_submission();
    submission.spec.limits.timeout_seconds = Some(600);
    assert!(adapter.submit(&submission).await.is_err());
    // Of the same spec only the time that is left is another one.
    submission.spec.limits.timeout_seconds = Some(500);
    fake.world().script.push_back(Before::Fail(refused(ApiErrorKind::Denied, "denied by a policy")));
    assert!(adapter.submit(&submission).await.is_err());
    assert_eq!(fake.world().config_maps.len(), 1);
    submission.spec.inputs.insert("changed".into(), "yes".into());
    adapter.submit(&submission).await.expect("it is accepted");
    let world = fake.world();
    assert_eq!((world.created, world.config_maps.len()), (1, 2));
}

#[tokio::test]
async fn racing_creates_and_lost_answers_end_in_one_job() {
    let (fake, adapter) = adapter();
    fake.world().script.push_back(Before::LoseRace);
    let adopted = adapter.submit(&submission()).await.expect("the other's Job is adopted");
    assert_eq!((adopted.uid.as_deref(), fake.world().created), (Some("job-1"), 1));

    let mut next = submission();
    next.key.attempt = 2;
    next.name = agents_core::name::ChildName::of(&next.owner.name, &next.key);
    fake.world().script.push_back(Before::LoseAnswer);
    let error = adapter.submit(&next).await.expect_err("nobody knows whether it was created");
    assert_eq!((error.kind, error.class), (AdapterErrorKind::Unavailable, Class::Retry));
    let found = adapter.submit(&next).await.expect("it was");
    assert_eq!((found.uid.as_deref(), fake.world().created), (Some("job-2"), 2));
}

#[tokio::test]
async fn a_job_that_is_being_deleted_is_adopted_and_seen_to_stop() {
    let (fake, adapter) = adapter();
    let submitted = adapter.submit(&submission()).await.expect("it is accepted");
    adapter.cancel(&submitted, Grace(Duration::from_secs(30))).await.expect("it is deleted");
    assert_eq!(adapter.submit(&submission()).await.expect("it still exists"), submitted);
    assert_eq!(adapter.status(&submitted).await.expect("it can be read"), Observation::Stopping);
    assert_eq!(fake.world().created, 1);
}

#[tokio::test]
async fn a_job_of_someone_else_is_a_conflict_and_is_left_alone() {
    for owner in [Some(stranger()), None] {
        let (fake, adapter) = adapter();
        let name = submission().name.as_str().to_owned();
        let submitted = adapter.submit(&submission()).await.expect("it is accepted");
        let theirs = {
            let mut world = fake.world();
            let job = world.jobs.get_mut(&name).expect("it is there");
            job.owner.clone_from(&owner);
            job.clone()
        };
        let error = adapter.submit(&submission()).await.expect_err("the name is taken");
        assert_eq!((error.kind, error.class), (AdapterErrorKind::Conflict, Class::WaitForChange));
        assert!(error.message.contains(&format!("Job team-a/{name}")), "{error}");
        assert!(
            error.message.contains(if owner.is_some() { "CronJob backup of batch/v1 (u-2)" } else { "no owner" }),
            "{error}"
        );

        assert_eq!(adapter.status(&submitted).await.expect("it can be read"), Observation::Lost);
        let by_name = RuntimeRef { uid: None, ..submitted };
        adapter.cancel(&by_name, Grace(Duration::ZERO)).await.expect("nothing of ours is left");
        assert_eq!(fake.world().jobs[&name], theirs);
        assert!(!fake.world().calls.iter().any(|call| call.starts_with("delete")));
    }
}

/// Names and uids are public: an owner reference proves nothing.
#[tokio::test]
async fn a_job_that_only_says_that_it_is_ours_is_a_conflict_and_is_left_alone() {
    type Change = fn(&mut JobView);
    let forgeries: [(&str, Change); 4] = [
        ("a kind of that name in another group", |job| {
            job.owner.as_mut().expect("it has one").api_version = "evil.example/v1".into();
        }),
        ("another version", |job| {
            job.owner.as_mut().expect("it has one").api_version = "agents.proompteng.ai/v2".into();
        }),
        ("another plan", |job| job.marks.plan = Some("sha256:other".into())),
        ("another pod", |job| {
            job.marks.pod = crate::runtime::Fingerprint::of(r#"{"containers": [{"name": "agent", "image": "evil"}]}"#);
        }),
    ];
    for (what, forge) in forgeries {
        let (fake, adapter) = adapter();
        let name = submission().name.as_str().to_owned();
        adapter.submit(&submission()).await.expect("it is accepted");
        let theirs = {
            let mut world = fake.world();
            let job = world.jobs.get_mut(&name).expect("it is there");
            forge(job);
            job.clone()
        };
        let error = adapter.submit(&submission()).await.expect_err(what);
        assert_eq!((error.kind, error.class), (AdapterErrorKind::Conflict, Class::WaitForChange), "{what}");
        assert!(error.message.contains(&format!("Job team-a/{name}")), "{error}");
        assert_eq!(fake.world().jobs[&name], theirs, "{what}");
        assert!(!fake.world().calls.iter().any(|call| call.starts_with("delete")), "{what}");
    }
}

#[tokio::test]
async fn a_config_map_that_carries_something_else_is_a_conflict() {
    type Change = fn(&mut ConfigMapView);
    let other_spec = || {
        let mut other = crate::runtime::manifest::tests::large_submission();
        other.spec.provider = "evil".into();
        let made = manifests(&other, JobSettings::default(), None).expect("it has a form");
        serde_json::to_value(made.config_map.expect("it is large")).expect("it has a JSON form")["binaryData"].clone()
    };
    let forgeries: [(&str, Change); 4] = [
        ("another group", |map| map.owner.as_mut().expect("it has one").api_version = "evil.example/v1".into()),
        ("it can be changed", |map| map.immutable = false),
        ("no spec", |map| map.files.clear()),
        ("no text", |map| map.files.values_mut().for_each(|file| *file = "%".into())),
    ];
    let others = serde_json::from_value::<BTreeMap<String, String>>(other_spec()).expect("files");
    for round in 0..=forgeries.len() {
        let (fake, adapter) = adapter();
        let large = large_submission();
        fake.world().script.push_back(Before::Fail(refused(ApiErrorKind::Unavailable, "etcd has no leader")));
        adapter.submit(&large).await.expect_err("the Job is not created");
        let what = {
            let mut world = fake.world();
            let map = world.config_maps.values_mut().next().expect("it is there");
            if let Some((what, forge)) = forgeries.get(round) {
                forge(map);
                what
            } else {
                map.files.clone_from(&others);
                "another spec"
            }
        };
        let error = adapter.submit(&large).await.expect_err(what);
        assert_eq!(error.kind, AdapterErrorKind::Conflict, "{what}");
        assert!(error.message.contains("ConfigMap team-a/"), "{error}");
        assert!(fake.world().jobs.is_empty(), "{what}: nothing was started");
    }
}

/// The time that is left differs between two tries of one attempt.
#[tokio::test]
async fn a_config_map_of_an_earlier_try_is_adopted() {
    let (fake, adapter) = adapter();
    let mut large = large_submission();
    fake.world().script.push_back(Before::Fail(refused(ApiErrorKind::Unavailable, "etcd has no leader")));
    adapter.submit(&large).await.expect_err("the Job is not created");
    large.spec.limits.timeout_seconds = Some(599);
    adapter.submit(&large).await.expect("the ConfigMap is adopted");
}

#[tokio::test]
async fn each_submission_has_a_key_of_its_own_and_each_try_of_it_the_same() {
    let key = |secret: u8, submission: &Submission| {
        let adapter = JobAdapter::new(Arc::new(Fake::default())).with_report_secret(ReportSecret::new([secret; 32]));
        adapter.secret.expect("it has one").key_of(submission)
    };
    let mut next = submission();
    next.key.attempt = 2;
    assert_eq!(key(1, &submission()), key(1, &submission()));
    assert_ne!(key(1, &submission()), key(2, &submission()));
    assert_ne!(key(1, &submission()), key(1, &next));
    assert_eq!(key(1, &next).len(), 64);
    assert_eq!(format!("{:?}", ReportSecret::new([7; 32])), "ReportSecret(…)");
}

#[tokio::test]
async fn a_job_of_our_run_for_another_attempt_is_a_conflict() {
    let (fake, adapter) = adapter();
    adapter.submit(&submission()).await.expect("it is accepted");
    let name = submission().name.as_str().to_owned();
    fake.world().jobs.get_mut(&name).expect("it is there").attempt = Some(7);
    let error = adapter.submit(&submission()).await.expect_err("it is another attempt's");
    assert_eq!(error.kind, AdapterErrorKind::Conflict);
}

#[tokio::test]
async fn a_large_spec_goes_ahead_of_its_job_and_is_adopted_too() {
    let (fake, adapter) = adapter();
    let large = large_submission();
    fake.world().script.push_back(Before::Fail(refused(ApiErrorKind::Ambiguous, "etcd has no leader")));
    adapter.submit(&large).await.expect_err("the Job is not created");
    adapter.submit(&large).await.expect("the ConfigMap is adopted");
    assert_eq!(fake.world().calls, ["create config map", "create job", "create config map", "create job"]);

    let other = Submission { owner: Owner { uid: "u-9".into(), ..large.owner.clone() }, ..large };
    let error = adapter.submit(&other).await.expect_err("the ConfigMap is not ours");
    assert_eq!(error.kind, AdapterErrorKind::Conflict);
    assert!(error.message.contains("ConfigMap team-a/"), "{error}");
}

#[tokio::test]
async fn cancel_is_idempotent_finds_a_replaced_job_and_uses_force_only_without_grace() {
    let (fake, adapter) = adapter();
    let submitted = adapter.submit(&submission()).await.expect("it is accepted");
    fake.world().pods = vec![
        serde_json::from_value(json!({ "metadata": {
            "namespace": "team-a", "name": "pod-1", "uid": "p-1", "creationTimestamp": "2026-01-05T10:00:00Z",
            "ownerReferences": [{ "kind": "Job", "name": "x", "uid": "job-1", "controller": true }],
        }}))
        .expect("it is a pod"),
    ];
    fake.world().calls.clear();
    adapter.cancel(&submitted, Grace(Duration::from_secs(30))).await.expect("it is deleted");
    assert_eq!(std::mem::take(&mut fake.world().calls), ["delete job-1"]);
    adapter.cancel(&submitted, Grace(Duration::ZERO)).await.expect("it is ended");
    assert_eq!(
        std::mem::take(&mut fake.world().calls),
        ["delete job-1", "list pods of job-1", "delete pod pod-1 within 1 s"]
    );
    let outdated = RuntimeRef { uid: Some("job-0".into()), ..submitted.clone() };
    adapter.cancel(&outdated, Grace(Duration::from_secs(30))).await.expect("ours of that name is deleted");
    assert_eq!(std::mem::take(&mut fake.world().calls), ["delete job-0", "get job", "delete job-1"]);
    fake.world().jobs.clear();
    for reference in [submitted.clone(), RuntimeRef { uid: None, ..submitted }] {
        adapter.cancel(&reference, Grace(Duration::from_secs(30))).await.expect("it is gone");
        assert_eq!(adapter.status(&reference).await.expect("it can be read"), Observation::Lost);
    }
}

/// The class is the call's own; only whose fault it is depends on the kind.
#[tokio::test]
async fn every_refusal_keeps_its_class() {
    let (unavailable, rejected) = (AdapterErrorKind::Unavailable, AdapterErrorKind::Rejected);
    let retry_after = Duration::from_secs(7);
    let table = [
        (ApiErrorKind::Ambiguous, unavailable),
        (ApiErrorKind::Unavailable, unavailable),
        (ApiErrorKind::NotSent, unavailable),
        (ApiErrorKind::Decode, unavailable),
        (ApiErrorKind::Gone, unavailable),
        (ApiErrorKind::Conflict, unavailable),
        (ApiErrorKind::TooManyRequests { retry_after }, unavailable),
        (ApiErrorKind::Forbidden, rejected),
        (ApiErrorKind::NotServed, rejected),
        (ApiErrorKind::Denied, rejected),
        (ApiErrorKind::Refused, rejected),
        (ApiErrorKind::Invalid, rejected),
    ];
    for (said, kind) in table {
        let (fake, adapter) = adapter();
        let refusal = refused(said, "exceeded quota: jobs");
        let class = refusal.class;
        fake.world().script.push_back(Before::Fail(refusal));
        let error = adapter.submit(&submission()).await.expect_err("it is refused");
        assert_eq!((error.kind, error.class), (kind, class), "{said:?}");
        assert_eq!(class == Class::Terminal, said == ApiErrorKind::Invalid, "{said:?}");
        assert!(error.message.contains("exceeded quota: jobs"), "{error}");
    }
}

#[tokio::test]
async fn a_spec_that_fits_nowhere_is_rejected_before_any_call() {
    let (fake, adapter) = adapter();
    let huge = crate::runtime::manifest::tests::submission_of_size(3 << 20);
    let error = adapter.submit(&huge).await.expect_err("it is too large");
    assert_eq!((error.kind, error.class), (AdapterErrorKind::Rejected, Class::Terminal));
    assert_eq!(fake.world().calls, Vec::<String>::new());
}
