//! A resolver of the cluster: it answers ResolutionRequests as Tekton's framework does (a label says whose they are; data
//! and refSource are written into the status, then the condition). What it answers is what it is asked for:
//!
//! | param | |
//! |---|---|
//! | `object` | the data to answer with, in base64 ([`data`]), so that nobody takes variables in it for variables of the request |
//! | `padding` | further bytes of data |
//! | `delay` | milliseconds to take |
//! | `mode` | `answer` (default); `fail`, with `object` as the message; `never` |

use std::{
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use super::{cluster::Cluster, manifests};

/// Its name.
pub const NAME: &str = "test-resolver";

/// All requests that it has seen: namespace and params.
static SEEN: Mutex<Vec<(String, Value)>> = Mutex::new(Vec::new());

/// For each request that it answered its params, and the time from when it learnt of it to when the answer was stored.
static TOOK: Mutex<Vec<(Value, Duration)>> = Mutex::new(Vec::new());

/// What param `object` has to be for the text `object`.
pub fn data(object: &str) -> String {
    BASE64_STANDARD.encode(object)
}

/// A ResolutionRequest to take the API for its kind from.
pub fn like() -> Value {
    json!({"apiVersion": "resolution.tekton.dev/v1beta1", "kind": "ResolutionRequest"})
}

/// Starts it for [`Cluster::shared`], on a thread of its own: a test's runtime ends with the test.
pub async fn shared() {
    static STARTED: OnceLock<()> = OnceLock::new();
    let cluster = Cluster::shared().await;
    STARTED.get_or_init(|| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { run(cluster.admin().await).await });
        });
    });
}

/// How often it was asked in `namespace`.
pub fn asked(namespace: &str) -> Vec<Value> {
    let seen = SEEN.lock().expect("no test panicked in it");
    seen.iter().filter(|(place, _)| place == namespace).map(|(_, params)| params.clone()).collect()
}

/// How long it took to answer what has the param `name` with this value.
pub fn took(name: &str, value: &str) -> Option<Duration> {
    let wanted = json!({"name": name, "value": value});
    let took = TOOK.lock().expect("no test panicked in it");
    let is = |params: &Value| params.as_array().is_some_and(|params| params.contains(&wanted));
    took.iter().find(|(params, _)| is(params)).map(|(_, took)| *took)
}

async fn run(client: Client) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &manifests::resource(&like()));
    let params = WatchParams::default().labels(&format!("resolution.tekton.dev/type={NAME}"));
    loop {
        let mut events = api.watch(&params, "").await.expect("a watch").boxed();
        while let Some(Ok(event)) = events.next().await {
            if let WatchEvent::Added(request) = event {
                tokio::spawn(answer(client.clone(), request));
            }
        }
    }
}

async fn answer(client: Client, request: DynamicObject) {
    let start = Instant::now();
    let params = request.data["spec"]["params"].clone();
    let namespace = request.namespace().expect("a namespace");
    SEEN.lock().expect("no test panicked in it").push((namespace.clone(), params.clone()));
    let param = |name: &str| {
        let found = params.as_array().into_iter().flatten().find(|param| param["name"] == name);
        found.and_then(|param| param["value"].as_str()).unwrap_or_default().to_owned()
    };
    tokio::time::sleep(Duration::from_millis(param("delay").parse().unwrap_or(0))).await;
    let object = param("object") + &"A".repeat(param("padding").parse().unwrap_or(0));
    let succeeded = |status: &str, reason: &str, message: &str| json!({"conditions": [{"type": "Succeeded", "status": status, "reason": reason, "message": message}]});
    let source = json!({"uri": "git+https://example.com/repo.git", "digest": {"sha1": "abc"}, "entryPoint": "p.yaml"});
    let statuses = match param("mode").as_str() {
        "never" => vec![],
        "fail" => {
            let mut status = succeeded("False", "ResolutionFailed", &object);
            (status["data"], status["refSource"], status["source"]) = (json!(""), json!({}), json!({}));
            vec![status]
        }
        _ => vec![json!({"data": object, "refSource": source, "source": source}), succeeded("True", "", "")],
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &manifests::resource(&like()));
    for (number, status) in statuses.into_iter().enumerate() {
        // Whoever asked may have given up.
        let patch = json!({"status": status});
        let _ = api.patch_status(&request.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        if number == 0 {
            TOOK.lock().expect("no test panicked in it").push((params.clone(), start.elapsed()));
        }
    }
}
