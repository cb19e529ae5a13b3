//! A cluster's API server as far as an observer of pods asks one: a list in pages, and a watch on which nothing happens. It
//! stands in this process, on a thread of its own, with every page ready: what it costs is its part of the machine.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundcrew_protocol::ids::Sha256Hex;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::bare_axum::tls;
use crate::load::Connector;
use crate::load::request::Caller;

/// Where pods are listed.
const PODS: &str = "/api/v1/pods";
/// Pods of a page, as the orchestrator asks for them.
const PAGE: usize = 500;
/// The namespace of all of them.
pub const NAMESPACE: &str = "fleet";
const TOKEN: &str = "a-service-account";

/// The cluster.
pub struct BareCluster {
    /// By which the orchestrator reaches it.
    pub kubeconfig: PathBuf,
    connector: Connector,
    caller: Caller,
    pages: usize,
    asked: Arc<Mutex<Option<Instant>>>,
}

struct Served {
    pages: Vec<Bytes>,
    asked: Arc<Mutex<Option<Instant>>>,
}

impl BareCluster {
    /// Starts one with so many pods; its kubeconfig goes into `folder`.
    pub fn start(pods: usize, folder: &Path) -> Result<BareCluster> {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let der = certificate.cert.der().clone();
        let fingerprint = Sha256Hex::of(&der);
        let key =
            PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).map_err(|why| anyhow!(why))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let pages = pages(pods);
        let (count, asked) = (pages.len(), Arc::<Mutex<Option<Instant>>>::default());
        let router = Router::new().route(PODS, get(answer));
        let router = router.with_state(Arc::new(Served { pages, asked: asked.clone() }));
        let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(tls(der, key)?));
        let server = axum_server::from_tcp(listener)?.acceptor(acceptor).http1_only();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // It lasts as long as this process; an end of it shows as an answer that does not come.
        std::thread::spawn(move || runtime.block_on(server.serve(router.into_make_service())));
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, config(address, &certificate.cert.pem()))
            .context("writing a kubeconfig")?;
        let caller = Caller { host: address.to_string(), token: TOKEN.to_owned() };
        let connector = Connector::new(address, fingerprint);
        Ok(BareCluster { kubeconfig, connector, caller, pages: count, asked })
    }

    /// When it was asked for the first page since this was last asked for.
    pub fn take_asked(&self) -> Option<Instant> {
        self.asked.lock().expect("no holder of this lock panics").take()
    }

    /// The limit: every page fetched over one connection and read as JSON. Seconds.
    pub async fn fetch_all(&self) -> Result<f64> {
        let began = Instant::now();
        let mut connection = self.connector.open().await?;
        let mut pods = 0;
        for page in 0..self.pages {
            let request = self.caller.request("GET", &format!("{PODS}?continue={page}"), b"");
            let page: Value = serde_json::from_slice(connection.call(&request).await?.good()?)?;
            pods += page["items"].as_array().context("a page has pods")?.len();
        }
        ensure!(pods > 0, "the cluster has no pods");
        Ok(began.elapsed().as_secs_f64())
    }
}

fn config(address: SocketAddr, pem: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"),
            "certificate-authority-data": STANDARD.encode(pem)}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "c", "user": "u"}}]})
    .to_string()
}

async fn answer(
    State(served): State<Arc<Served>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response<Body> {
    if query.contains_key("watch") {
        let nothing = futures_util::stream::pending::<std::io::Result<Bytes>>();
        return Response::new(Body::from_stream(nothing));
    }
    let page = query.get("continue").map_or(Some(0), |page| page.parse::<usize>().ok());
    let body = page.and_then(|page| served.pages.get(page));
    if page == Some(0) {
        *served.asked.lock().expect("no holder of this lock panics") = Some(Instant::now());
    }
    let mut response = Response::new(Body::from(body.cloned().unwrap_or_default()));
    *response.status_mut() = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn pages(pods: usize) -> Vec<Bytes> {
    let all: Vec<usize> = (0..pods).collect();
    let parts: Vec<&[usize]> = all.chunks(PAGE).collect();
    let page = |(at, part): (usize, &&[usize])| {
        let more = if at + 1 < parts.len() { (at + 1).to_string() } else { String::new() };
        let items: Vec<Value> = part.iter().map(|number| pod(*number)).collect();
        let list = json!({"kind": "PodList", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": "900000", "continue": more}});
        Bytes::from(list.to_string())
    };
    parts.iter().enumerate().map(page).collect()
}

/// What a pod and its agent are called.
pub fn name_of(number: usize) -> String {
    format!("groundcrew-agent-{number:05}")
}

/// Its uid.
pub fn uid_of(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Every tenth has ended.
pub fn has_ended(number: usize) -> bool {
    number % 10 == 9
}

/// A pod of an agent with what a cluster adds to one.
fn pod(number: usize) -> Value {
    let name = name_of(number);
    let times = "2026-01-01T00:00:00Z";
    let has_ended = has_ended(number);
    let state = if has_ended {
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": times, "finishedAt": times,
            "containerID": format!("containerd://{number:064x}")}})
    } else {
        json!({"running": {"startedAt": times}})
    };
    let managed = json!({"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": times,
        "fieldsType": "FieldsV1", "subresource": "status", "fieldsV1": {"f:status": {"f:conditions": {
            "k:{\"type\":\"ContainersReady\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}},
            "k:{\"type\":\"Initialized\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}},
            "k:{\"type\":\"Ready\"}": {".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}}},
            "f:containerStatuses": {}, "f:hostIP": {}, "f:phase": {}, "f:podIP": {}, "f:startTime": {}}}});
    let conditions: Vec<Value> = ["Initialized", "Ready", "ContainersReady", "PodScheduled"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": times}))
        .collect();
    json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": uid_of(number),
            "resourceVersion": (100_000 + number).to_string(), "creationTimestamp": times,
            "labels": {"app.kubernetes.io/name": "groundcrew-agent", "groundcrew.dev/agent": name,
                "controller-revision-hash": "5d4f6c7b8", "pod-template-generation": "3"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "groundcrew-agent",
                "uid": "11111111-0000-4000-8000-000000000000", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [managed]},
        "spec": {"nodeName": format!("node-{number:05}"), "restartPolicy": "Always", "containers": [{"name": "agent",
            "image": "registry.example/groundcrew-agent:0.1.0", "command": ["groundcrew", "agent"],
            "env": [{"name": "GROUNDCREW_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
            "volumeMounts": [{"name": "home", "mountPath": "/var/lib/groundcrew"}, {"name": "dev", "mountPath": "/dev"}],
            "securityContext": {"privileged": true}}],
            "volumes": [{"name": "home", "hostPath": {"path": "/var/lib/groundcrew", "type": "DirectoryOrCreate"}}],
            "tolerations": [{"operator": "Exists"}]},
        "status": {"phase": if has_ended { "Failed" } else { "Running" }, "conditions": conditions,
            "hostIP": "10.0.0.1", "podIP": "10.0.0.1", "startTime": times, "qosClass": "BestEffort",
            "containerStatuses": [{"name": "agent", "image": "registry.example/groundcrew-agent:0.1.0",
                "imageID": format!("registry.example/groundcrew-agent@sha256:{number:064x}"), "ready": !has_ended,
                "restartCount": 0, "started": !has_ended, "containerID": format!("containerd://{number:064x}"),
                "state": state, "lastState": {}}]}})
}
