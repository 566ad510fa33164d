//! Request sequences whose answers must be the same from the model and from a real API server of the supported
//! version. Each case runs alone in an empty namespace; what differs by nature (uids, times, the versions' values) is
//! reduced to relations before it is compared.

use futures::{AsyncBufReadExt, TryStreamExt, future::BoxFuture};
use kube::Client;
use serde_json::{Value, json};

/// What one request of a case was answered, in comparable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What was asked.
    pub step: String,
    /// What came back.
    pub answer: String,
}

/// A sequence of requests.
pub struct Case {
    /// Its name; also what the test prints.
    pub name: &'static str,
    run: fn(Session) -> BoxFuture<'static, Vec<Observation>>,
}

impl Case {
    /// Runs it in `namespace`, which must exist and hold nothing of its kinds.
    pub async fn check(&self, client: Client, namespace: &str) -> Vec<Observation> {
        let session = Session { client, namespace: namespace.to_owned(), seen: Vec::new() };
        (self.run)(session).await
    }
}

/// All cases.
pub fn conformance() -> Vec<Case> {
    macro_rules! cases {
        ($($name:ident),* $(,)?) => {
            vec![$(Case { name: stringify!($name), run: |session| Box::pin($name(session)) }),*]
        };
    }
    cases![
        create_needs_type_and_name,
        names_are_taken_once,
        versions_conflict,
        generation_counts_spec,
        status_is_a_part_of_its_own,
        minimal_status_replaces_the_whole,
        a_phase_is_read_before_any_is_stored,
        objects_have_a_largest_size,
        no_write_without_a_change,
        finalizers_hold_an_object,
        deletes_have_preconditions,
        patches_of_each_type,
        leases_need_a_version,
        jobs_are_defaulted_and_immutable,
        jobs_are_orphaned_by_default,
        lists_page_and_select,
        selector_watches_leave,
        finished_objects_leave_in_silence,
        old_versions_are_refused,
        absent_things,
    ]
}

/// A client with the record of its answers.
struct Session {
    client: Client,
    namespace: String,
    seen: Vec<Observation>,
}

/// An answer: HTTP status and body.
struct Reply {
    code: u16,
    body: Value,
}

impl Reply {
    fn version(&self) -> String {
        self.body["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
    }

    fn uid(&self) -> String {
        self.body["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer as compared: of a refusal its code and reason, of an object the facts asked for.
    fn facts(&self, facts: &[&str]) -> String {
        if self.code >= 400 {
            return format!("{} {}", self.code, self.body["reason"].as_str().unwrap_or_default());
        }
        let facts: Vec<String> = facts
            .iter()
            .map(|path| {
                let value = self.body.pointer(path).cloned().unwrap_or(Value::Null);
                format!("{path}={value}")
            })
            .collect();
        format!("{} {}", self.code, facts.join(" ")).trim_end().to_owned()
    }
}

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

impl Session {
    fn path(&self, plural: &str, name: &str) -> String {
        let group = match plural {
            "configmaps" | "pods" | "secrets" => "/api/v1",
            "jobs" => "/apis/batch/v1",
            "leases" => "/apis/coordination.k8s.io/v1",
            _ => "/apis/agents.proompteng.ai/v1alpha1",
        };
        let path = format!("{group}/namespaces/{}/{plural}", self.namespace);
        if name.is_empty() { path } else { format!("{path}/{name}") }
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Reply {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", JSON)
            .body(kube::client::Body::from(bytes))
            .expect("a case's request is well formed");
        let response = self.client.send(request).await.expect("the server answers");
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.expect("the answer arrives");
        Reply { code, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    fn note(&mut self, step: &str, answer: impl Into<String>) {
        self.seen.push(Observation { step: step.to_owned(), answer: answer.into() });
    }

    async fn post(&self, plural: &str, object: &Value) -> Reply {
        self.send("POST", &self.path(plural, ""), JSON, object).await
    }

    async fn put(&self, plural: &str, name: &str, object: &Value) -> Reply {
        self.send("PUT", &self.path(plural, name), JSON, object).await
    }

    async fn patch(&self, plural: &str, name: &str, change: &Value) -> Reply {
        self.send("PATCH", &self.path(plural, name), MERGE, change).await
    }

    async fn get(&self, plural: &str, name: &str) -> Reply {
        self.send("GET", &self.path(plural, name), JSON, &Value::Null).await
    }

    async fn delete(&self, plural: &str, name: &str, options: &Value) -> Reply {
        self.send("DELETE", &self.path(plural, name), JSON, options).await
    }

    /// The events of a watch with these parameters, until the server ends it after a second.
    async fn watch(&self, plural: &str, query: &str) -> Vec<Value> {
        let uri = format!("{}?watch=true&timeoutSeconds=1&{query}", self.path(plural, ""));
        let request = http::Request::get(uri).body(Vec::new()).expect("a case's request is well formed");
        match self.client.request_stream(request).await {
            Ok(stream) => {
                let lines: Vec<String> = stream.lines().try_collect().await.expect("the watch ends in order");
                lines.iter().map(|line| serde_json::from_str(line).expect("events are JSON")).collect()
            }
            Err(kube::Error::Api(status)) => vec![json!({"type": "REFUSED", "object": {"code": status.code}})],
            Err(error) => panic!("the watch could not be opened: {error}"),
        }
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// A run that every version of the schema admits.
fn run(name: &str) -> Value {
    json!({
        "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun", "metadata": {"name": name},
        "spec": {"agentRef": {"name": "absent"}, "implementation": {"inline": {"text": "nothing"}}, "runtime": {"type": "job"}},
    })
}

fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "agent", "image": "absent.invalid/none"}],
        }}},
    })
}

async fn create_needs_type_and_name(mut s: Session) -> Vec<Observation> {
    for (step, object) in [
        ("no kind", json!({"apiVersion": "v1", "metadata": {"name": "a"}})),
        ("other kind", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})),
        ("no name", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}})),
        ("bad name", config_map("A_b")),
        ("long name", config_map(&"a".repeat(254))),
        (
            "bad label",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"l": "-x"}}}),
        ),
        (
            "other namespace",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "other"}}),
        ),
        (
            "with version",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": "7"}}),
        ),
        ("longest name", config_map(&"a".repeat(253))),
    ] {
        let reply = s.post("configmaps", &object).await;
        s.note(step, reply.facts(&[]));
    }
    s.seen
}

async fn names_are_taken_once(mut s: Session) -> Vec<Observation> {
    for step in ["first", "second"] {
        let reply = s.post("configmaps", &config_map("once")).await;
        s.note(step, reply.facts(&[]));
    }
    let mut generated = config_map("");
    generated["metadata"] = json!({"generateName": format!("{}-", "g".repeat(70))});
    let (one, two) = (s.post("configmaps", &generated).await, s.post("configmaps", &generated).await);
    let name = |reply: &Reply| reply.body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    s.note("generated", format!("{} {} differ={}", one.code, name(&one).len(), name(&one) != name(&two)));
    s.seen
}

async fn versions_conflict(mut s: Session) -> Vec<Observation> {
    let created = s.post("configmaps", &config_map("v")).await;
    let mut next = created.body.clone();
    next["data"] = json!({"a": "2"});
    let second = s.put("configmaps", "v", &next).await;
    s.note("update with the version", second.facts(&["/data/a"]));
    s.note("the version is new", (second.version() != created.version()).to_string());
    let stale = s.put("configmaps", "v", &next).await;
    s.note("update with the old version", stale.facts(&[]));
    next["metadata"] = json!({"name": "v"});
    let free = s.put("configmaps", "v", &next).await;
    s.note("update without a version", free.facts(&["/data/a"]));
    next["metadata"] = json!({"name": "v", "uid": "00000000-0000-4000-a000-000000000000"});
    let foreign = s.put("configmaps", "v", &next).await;
    s.note("update of another uid", foreign.facts(&[]));
    next["metadata"] = json!({"name": "w"});
    let other = s.put("configmaps", "v", &next).await;
    s.note("update of another name", other.facts(&[]));
    let patched = s
        .patch("configmaps", "v", &json!({"metadata": {"resourceVersion": created.version()}, "data": {"b": "1"}}))
        .await;
    s.note("patch with the old version", patched.facts(&[]));
    s.post("agentruns", &run("v")).await;
    let unversioned = s.put("agentruns", "v", &run("v")).await;
    s.note("update of a custom object without a version", unversioned.facts(&[]));
    s.seen
}

async fn generation_counts_spec(mut s: Session) -> Vec<Observation> {
    let generation = ["/metadata/generation"];
    let created = s.post("agentruns", &run("g")).await;
    s.note("created", created.facts(&generation));
    for (step, change) in [
        ("label", json!({"metadata": {"labels": {"a": "b"}}})),
        ("annotation", json!({"metadata": {"annotations": {"a": "b"}}})),
        ("spec", json!({"spec": {"implementation": {"inline": {"text": "something"}}}})),
        ("the same spec", json!({"spec": {"implementation": {"inline": {"text": "something"}}}})),
        ("set by hand", json!({"metadata": {"generation": 40}})),
    ] {
        let reply = s.patch("agentruns", "g", &change).await;
        s.note(step, reply.facts(&generation));
    }
    let reply = s.patch("agentruns", "g/status", &json!({"status": {"phase": "Pending"}})).await;
    s.note("status", reply.facts(&generation));
    s.seen
}

async fn status_is_a_part_of_its_own(mut s: Session) -> Vec<Observation> {
    let facts = ["/metadata/generation", "/metadata/labels", "/spec/implementation/inline/text", "/status/phase"];
    let mut object = run("s");
    object["status"] = json!({"phase": "Running"});
    let created = s.post("agentruns", &object).await;
    s.note("created with a status", created.facts(&facts));
    let reply = s.patch("agentruns", "s", &json!({"status": {"phase": "Running"}})).await;
    s.note("status by the main path", reply.facts(&facts));
    s.note("it stored nothing", (reply.version() == created.version()).to_string());
    let reply = s.patch("agentruns", "s/status", &json!({
        "metadata": {"labels": {"a": "b"}}, "spec": {"implementation": {"inline": {"text": "other"}}}, "status": {"phase": "Running"},
    })).await;
    s.note("everything by the status path", reply.facts(&facts));
    let reply = s.patch("agentruns", "s", &json!({"status": null})).await;
    s.note("status removed by the main path", reply.facts(&facts));
    s.seen
}

/// The definition's default: nobody sees a run without a phase, though none is stored.
async fn a_phase_is_read_before_any_is_stored(mut s: Session) -> Vec<Observation> {
    let facts = ["/metadata/generation", "/status"];
    let created = s.post("agentruns", &run("d")).await;
    s.note("created", created.facts(&facts));
    let reply = s.get("agentruns", "d").await;
    s.note("read", reply.facts(&facts));
    for phase in ["Pending", "Running"] {
        let path = format!("{}?fieldSelector=status.phase%3D{phase}", s.path("agentruns", ""));
        let reply = s.send("GET", &path, JSON, &Value::Null).await;
        s.note("selected", reply.facts(&["/items/0/status"]));
    }
    let reply = s.patch("agentruns", "d", &json!({"metadata": {"labels": {"a": "b"}}})).await;
    s.note("changed", reply.facts(&facts));
    let reply = s.patch("agentruns", "d/status", &json!({"status": {"reason": "A"}})).await;
    s.note("a status without a phase", reply.facts(&facts));
    let reply = s.patch("agentruns", "d/status", &json!({"status": null})).await;
    s.note("no status", reply.facts(&facts));
    s.seen
}

/// etcd bounds an object, and the API server a request.
async fn objects_have_a_largest_size(mut s: Session) -> Vec<Observation> {
    let with = |bytes: usize| {
        let mut object = run("z");
        let parts = (0..bytes / 100_000).map(|n| (format!("p{n:02}"), json!("x".repeat(100_000))));
        object["spec"]["payloads"] = Value::Object(parts.collect());
        object
    };
    for bytes in [3_300_000, 1_600_000, 1_400_000] {
        let reply = s.post("agentruns", &with(bytes)).await;
        let message = reply.body["message"].as_str().unwrap_or_default().to_owned();
        s.note(&format!("{bytes} bytes"), format!("{} {message}", reply.facts(&[])));
    }
    s.seen
}

async fn minimal_status_replaces_the_whole(mut s: Session) -> Vec<Observation> {
    let facts = ["/metadata/generation", "/spec/implementation/inline/text", "/status"];
    s.post("agentruns", &run("m")).await;
    let first =
        s.patch("agentruns", "m/status", &json!({"status": {"phase": "Pending", "reason": "A", "message": "b"}})).await;
    let minimal = |version: &str| {
        json!({
            "apiVersion": "agents.proompteng.ai/v1alpha1", "kind": "AgentRun",
            "metadata": {"name": "m", "resourceVersion": version}, "status": {"phase": "Running"},
        })
    };
    let reply = s.put("agentruns", "m/status", &minimal(&first.version())).await;
    s.note("minimal put", reply.facts(&facts));
    let stale = s.put("agentruns", "m/status", &minimal(&first.version())).await;
    s.note("with the old version", stale.facts(&[]));
    let mut free = minimal("");
    free["metadata"] = json!({"name": "m"});
    let reply = s.put("agentruns", "m/status", &free).await;
    s.note("without a version", reply.facts(&[]));
    let absent = s.put("agentruns", "absent/status", &minimal("1")).await;
    s.note("of an absent object", absent.facts(&[]));
    s.seen
}

async fn no_write_without_a_change(mut s: Session) -> Vec<Observation> {
    let created = s.post("configmaps", &config_map("n")).await;
    let put = s.put("configmaps", "n", &created.body).await;
    s.note("the same put", format!("{} {}", put.code, put.version() == created.version()));
    let patch = s.patch("configmaps", "n", &json!({"data": {"a": "1"}})).await;
    s.note("the same patch", format!("{} {}", patch.code, patch.version() == created.version()));
    let events = s.watch("configmaps", &format!("resourceVersion={}", created.version())).await;
    s.note("events", events.len().to_string());
    s.seen
}

async fn finalizers_hold_an_object(mut s: Session) -> Vec<Observation> {
    let mut object = run("f");
    object["metadata"]["finalizers"] = json!(["agents.proompteng.ai/test"]);
    let created = s.post("agentruns", &object).await;
    let deleted = s.delete("agentruns", "f", &Value::Null).await;
    let facts = ["/kind", "/metadata/finalizers", "/metadata/deletionGracePeriodSeconds", "/metadata/generation"];
    s.note("deleted", deleted.facts(&facts));
    let again = s.delete("agentruns", "f", &Value::Null).await;
    s.note("deleted again", again.facts(&facts));
    s.note("the second stored nothing", (again.version() == deleted.version()).to_string());
    let more = json!({"metadata": {"finalizers": ["agents.proompteng.ai/test", "agents.proompteng.ai/more"]}});
    let reply = s.patch("agentruns", "f", &more).await;
    s.note("one finalizer more", reply.facts(&[]));
    let taken = s.post("agentruns", &run("f")).await;
    s.note("created while it ends", taken.facts(&[]));
    let released = s.patch("agentruns", "f", &json!({"metadata": {"finalizers": []}})).await;
    s.note("released", released.code.to_string());
    let gone = s.get("agentruns", "f").await;
    s.note("then", gone.facts(&[]));
    let next = s.post("agentruns", &run("f")).await;
    s.note("created anew", format!("{} other uid={}", next.code, next.uid() != created.uid()));
    s.seen
}

async fn deletes_have_preconditions(mut s: Session) -> Vec<Observation> {
    let created = s.post("configmaps", &config_map("d")).await;
    for (step, preconditions) in [
        ("another uid", json!({"uid": "00000000-0000-4000-a000-000000000000"})),
        ("another version", json!({"resourceVersion": "1"})),
        ("both right", json!({"uid": created.uid(), "resourceVersion": created.version()})),
        ("once more", json!({"uid": created.uid()})),
    ] {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
        let reply = s.delete("configmaps", "d", &options).await;
        s.note(step, reply.facts(&["/kind", "/status", "/details/name", "/details/kind"]));
    }
    s.seen
}

async fn patches_of_each_type(mut s: Session) -> Vec<Observation> {
    s.post("agentruns", &run("p")).await;
    let path = s.path("agentruns", "p");
    let failing = json!([{"op": "test", "path": "/metadata/name", "value": "q"}]);
    let adding = json!([
        {"op": "test", "path": "/metadata/name", "value": "p"},
        {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
    ]);
    let reply = s.send("PATCH", &path, "application/json-patch+json", &failing).await;
    s.note("failing test", reply.facts(&[]));
    let reply = s.send("PATCH", &path, "application/json-patch+json", &adding).await;
    s.note("passing test", reply.facts(&["/metadata/labels/a"]));
    let change = json!({"metadata": {"labels": {"a": null}}});
    let reply = s.send("PATCH", &path, "application/strategic-merge-patch+json", &change).await;
    s.note("strategic on a custom object", reply.facts(&[]));
    let reply = s.send("PATCH", &path, MERGE, &change).await;
    s.note("merge", reply.facts(&["/metadata/labels"]));
    let reply = s.patch("agentruns", "absent", &change).await;
    s.note("of an absent object", reply.facts(&[]));
    s.seen
}

async fn leases_need_a_version(mut s: Session) -> Vec<Observation> {
    let lease = |holder: &str| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0},
        })
    };
    let created = s.post("leases", &lease("a")).await;
    s.note("created", created.facts(&["/spec/holderIdentity", "/metadata/generation"]));
    let second = s.post("leases", &lease("b")).await;
    s.note("created by another", second.facts(&[]));
    let free = s.put("leases", "l", &lease("b")).await;
    s.note("taken without a version", free.facts(&[]));
    let mut renewed = created.body.clone();
    renewed["spec"]["renewTime"] = json!("2026-01-01T00:00:00.123456Z");
    let reply = s.put("leases", "l", &renewed).await;
    s.note("renewed", reply.facts(&["/spec/renewTime"]));
    let reply = s.put("leases", "l", &renewed).await;
    s.note("renewed with the old version", reply.facts(&[]));
    s.seen
}

async fn jobs_are_defaulted_and_immutable(mut s: Session) -> Vec<Observation> {
    let created = s.post("jobs", &job("j")).await;
    let uid = created.uid();
    let labels = &created.body["spec"]["template"]["metadata"]["labels"];
    let ties = [
        labels["batch.kubernetes.io/controller-uid"] == uid,
        labels["batch.kubernetes.io/job-name"] == "j",
        labels["job-name"] == "j",
        created.body["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] == uid,
    ];
    s.note(
        "created",
        created.facts(&[
            "/metadata/generation",
            "/spec/backoffLimit",
            "/spec/completions",
            "/spec/parallelism",
            "/spec/completionMode",
            "/spec/podReplacementPolicy",
            "/spec/template/spec/terminationGracePeriodSeconds",
            "/status",
        ]),
    );
    s.note("labels", format!("{ties:?}"));
    for (step, change) in [
        ("template", json!({"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}})),
        ("label", json!({"metadata": {"labels": {"x": "y"}}})),
        ("deadline", json!({"spec": {"activeDeadlineSeconds": 60}})),
        ("time to live", json!({"spec": {"ttlSecondsAfterFinished": 60}})),
    ] {
        let reply = s.patch("jobs", "j", &change).await;
        s.note(step, reply.facts(&["/metadata/generation"]));
    }
    let mut started = job("started");
    started["spec"]["suspend"] = json!(false);
    s.post("jobs", &started).await;
    let reply = s.patch("jobs", "started", &json!({"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}})).await;
    s.note("template of a started job", reply.facts(&[]));
    let mut always = job("k");
    always["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    let reply = s.post("jobs", &always).await;
    s.note("restartPolicy Always", reply.facts(&[]));
    let mut empty = job("k");
    empty["spec"]["template"]["spec"]["containers"] = json!([]);
    let reply = s.post("jobs", &empty).await;
    s.note("no containers", reply.facts(&[]));
    let reply = s.post("jobs", &job(&"k".repeat(64))).await;
    s.note("name of 64", reply.facts(&[]));
    let reply = s.post("jobs", &job(&"k".repeat(63))).await;
    s.note("name of 63", reply.facts(&[]));
    s.seen
}

async fn jobs_are_orphaned_by_default(mut s: Session) -> Vec<Observation> {
    let mut held = job("o");
    // Keeps the garbage collector of a real cluster from finishing before the test looks.
    held["metadata"]["finalizers"] = json!(["agents.proompteng.ai/test"]);
    s.post("jobs", &held).await;
    let has = |reply: &Reply, finalizer: &str| {
        reply.body["metadata"]["finalizers"].as_array().into_iter().flatten().any(|f| f == finalizer)
    };
    let reply = s.delete("jobs", "o", &Value::Null).await;
    s.note("without a policy", format!("{} orphan={}", reply.code, has(&reply, "orphan")));
    held["metadata"]["name"] = json!("fg");
    s.post("jobs", &held).await;
    let reply = s.delete("jobs", "fg", &json!({"propagationPolicy": "Foreground"})).await;
    s.note("foreground", format!("{} foreground={}", reply.code, has(&reply, "foregroundDeletion")));
    s.post("jobs", &job("bg")).await;
    let reply = s.delete("jobs", "bg", &json!({"propagationPolicy": "Background"})).await;
    s.note("background", reply.facts(&["/kind", "/status"]));
    let reply = s.delete("jobs", "fg", &json!({"propagationPolicy": "Sideways"})).await;
    s.note("unknown policy", reply.facts(&[]));
    for name in ["o", "fg"] {
        s.patch("jobs", name, &json!({"metadata": {"finalizers": null}})).await;
    }
    s.seen
}

async fn lists_page_and_select(mut s: Session) -> Vec<Observation> {
    for n in 0..5 {
        let mut object = config_map(&format!("c{n}"));
        object["metadata"]["labels"] = json!({"page": "yes", "odd": (n % 2 == 1).to_string()});
        s.post("configmaps", &object).await;
    }
    let names = |reply: &Reply| -> Vec<String> {
        let items = reply.body["items"].as_array().into_iter().flatten();
        items.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let path = s.path("configmaps", "");
    let mut token = String::new();
    let mut versions = Vec::new();
    for page in 0..3 {
        let uri = format!("{path}?limit=2&labelSelector=page&continue={token}");
        let reply = s.send("GET", &uri, JSON, &Value::Null).await;
        token = reply.body["metadata"]["continue"].as_str().unwrap_or_default().replace('/', "%2F");
        versions.push(reply.version());
        s.note(&format!("page {page}"), format!("{:?} more={}", names(&reply), !token.is_empty()));
        if page == 0 {
            // What comes after the first page is not on the later ones.
            let mut late = config_map("c4a");
            late["metadata"]["labels"] = json!({"page": "yes"});
            s.post("configmaps", &late).await;
        }
    }
    s.note("one version for all pages", versions.iter().all(|version| *version == versions[0]).to_string());
    for query in [
        "labelSelector=odd%3Dtrue",
        "labelSelector=odd+in+(true)",
        "labelSelector=odd+notin+(true),page",
        "labelSelector=page,!odd",
        "labelSelector=odd%21%3Dtrue,page%3Dyes",
        "fieldSelector=metadata.name%3Dc3",
        "fieldSelector=data.a%3D1",
        "limit=1&continue=nonsense",
        "resourceVersion=abc",
    ] {
        let reply = s.send("GET", &format!("{path}?{query}"), JSON, &Value::Null).await;
        let answer = if reply.code == 200 { format!("{:?}", names(&reply)) } else { reply.facts(&[]) };
        s.note(query, answer);
    }
    let runs = s.path("agentruns", "");
    s.post("agentruns", &run("a")).await;
    s.post("agentruns", &run("b")).await;
    s.patch("agentruns", "b/status", &json!({"status": {"phase": "Succeeded"}})).await;
    for query in ["fieldSelector=status.phase%3DSucceeded", "fieldSelector=status.phase%21%3DSucceeded"] {
        let reply = s.send("GET", &format!("{runs}?{query}"), JSON, &Value::Null).await;
        s.note(query, format!("{} {:?}", reply.code, names(&reply)));
    }
    s.seen
}

/// Type, name, phase and whether it is being deleted, of each event.
fn events(list: &[Value]) -> String {
    let lines: Vec<String> = list
        .iter()
        .map(|event| {
            let object = &event["object"];
            format!(
                "{} {} phase={} deleting={}",
                event["type"].as_str().unwrap_or_default(),
                object["metadata"]["name"].as_str().unwrap_or_default(),
                object["status"]["phase"].as_str().unwrap_or("-"),
                object["metadata"]["deletionTimestamp"].is_string()
            )
        })
        .collect();
    lines.join("; ")
}

const ACTIVE: &str = "fieldSelector=status.phase%21%3DSucceeded";

async fn selector_watches_leave(mut s: Session) -> Vec<Observation> {
    let created = s.post("agentruns", &run("w")).await;
    s.patch("agentruns", "w/status", &json!({"status": {"phase": "Running"}})).await;
    let ended = s.patch("agentruns", "w/status", &json!({"status": {"phase": "Succeeded"}})).await;
    let seen = s.watch("agentruns", &format!("{ACTIVE}&resourceVersion={}", created.version())).await;
    s.note("events", events(&seen));
    let last = seen.last().map(|event| event["object"]["metadata"]["resourceVersion"].clone()).unwrap_or_default();
    s.note("the last has the new version", (last == ended.version()).to_string());
    let all = s.watch("agentruns", &format!("resourceVersion={}", created.version())).await;
    s.note("without a selector", events(&all));
    s.seen
}

async fn finished_objects_leave_in_silence(mut s: Session) -> Vec<Observation> {
    let mut object = run("q");
    object["metadata"]["finalizers"] = json!(["agents.proompteng.ai/test"]);
    s.post("agentruns", &object).await;
    let ended = s.patch("agentruns", "q/status", &json!({"status": {"phase": "Succeeded"}})).await;
    s.delete("agentruns", "q", &Value::Null).await;
    s.patch("agentruns", "q", &json!({"metadata": {"finalizers": null}})).await;
    let seen = s.watch("agentruns", &format!("{ACTIVE}&resourceVersion={}", ended.version())).await;
    s.note("active only", events(&seen));
    let seen = s.watch("agentruns", &format!("resourceVersion={}", ended.version())).await;
    s.note("all", events(&seen));
    s.seen
}

async fn old_versions_are_refused(mut s: Session) -> Vec<Observation> {
    s.post("configmaps", &config_map("x")).await;
    let path = s.path("configmaps", "");
    let reply = s.send("GET", &format!("{path}?resourceVersion=999999999999"), JSON, &Value::Null).await;
    s.note("list from the future", reply.facts(&[]));
    let seen = s.watch("configmaps", "resourceVersion=abc").await;
    s.note("watch from nonsense", seen[0]["object"]["code"].to_string());
    let query =
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=absent";
    let seen = s.watch("configmaps", query).await;
    let end = &seen[0]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
    s.note("streaming list", format!("{} {end}", seen[0]["type"]));
    let seen = s.watch("configmaps", "sendInitialEvents=true").await;
    s.note("streaming list without a match", seen[0]["object"]["code"].to_string());
    s.seen
}

async fn absent_things(mut s: Session) -> Vec<Observation> {
    for (plural, name) in [("configmaps", "absent"), ("agentruns", "absent"), ("nonsense", "absent")] {
        let reply = s.get(plural, name).await;
        s.note(&format!("get {plural}"), reply.facts(&[]));
        let reply = s.delete(plural, name, &Value::Null).await;
        s.note(&format!("delete {plural}"), reply.facts(&[]));
    }
    let reply = s.put("agentruns", "absent", &run("absent")).await;
    s.note("put", reply.facts(&[]));
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "absent"}});
    let reply = s.put("configmaps", "absent", &body).await;
    s.note("put of a config map", reply.facts(&[]));
    let reply = s.get("agentruns", "absent/status").await;
    s.note("status", reply.facts(&[]));
    s.seen
}
