//! A cluster that does as a test tells it: lists pods in pages and watches them, over TLS, and errs in every way that a
//! real one may.

mod watching;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundcrew_orchestrator::listen::run_listener;
use http::{HeaderMap, Response, StatusCode};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use watching::watching;

/// What a service account says to be let in.
pub const TOKEN: &str = "a-service-account";

/// What a cluster does beside answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    /// Nothing.
    None,
    /// Each event is followed by a bookmark, and each watch ends after it.
    Bookmarks,
    /// What happened is forgotten at once: a watch from before is answered 410, as an event.
    Expires,
    /// The same, as the answer itself.
    ExpiresAtOnce,
    /// A watch is cut in the middle of what it says.
    Cuts,
    /// A watch is cut before the first word of what it would say.
    CutsAtOnce,
    /// Every event comes three times.
    Doubles,
    /// After each event all earlier ones come again, the oldest last.
    Reorders,
    /// Lists and watches are answered only once the test opens the gate.
    Waits,
    /// What a watch says comes a few bytes at a time.
    Dribbles,
    /// The first list cannot be gone on with after its first page.
    PagesExpire,
}

#[derive(Debug)]
struct Inside {
    quirk: Quirk,
    /// The selector that must be asked for.
    selector: &'static str,
    /// By namespace and name.
    pods: BTreeMap<(String, String), Value>,
    version: u64,
    /// Version and event, as they happened.
    events: Vec<(u64, Value)>,
    lists: usize,
    watches: usize,
    pages: usize,
    /// What a list shows that goes on in pages, by its version.
    snapshots: HashMap<u64, Vec<Value>>,
    /// A token of a list was refused, as [`Quirk::PagesExpire`] has it once.
    has_expired: bool,
    /// What happened up to this version is forgotten.
    forgotten: u64,
    /// Watches up to this one have ended; up to the other they say nothing more, and do not end.
    ended: usize,
    mute: usize,
}

/// The cluster.
pub struct Cluster {
    inside: Arc<Shared>,
    pub kubeconfig: PathBuf,
    pub address: SocketAddr,
    /// Its certificate, in PEM.
    pub certificate: String,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

struct Shared {
    inside: Mutex<Inside>,
    /// Raised with everything that happens.
    news: watch::Sender<u64>,
    gate: watch::Sender<bool>,
    /// Watches are answered while this is true, and how many were asked for.
    lets_watch: watch::Sender<bool>,
    asked_to_watch: watch::Sender<usize>,
    /// How many of them were let in.
    watched: watch::Sender<usize>,
    /// How many pages of lists were asked for; as many as the other says are answered.
    asked_for_pages: watch::Sender<usize>,
    lets_pages: watch::Sender<usize>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }
}

impl Cluster {
    pub async fn start(quirk: Quirk) -> Cluster {
        let inside = Inside {
            quirk,
            selector: "app=agent",
            pods: BTreeMap::new(),
            version: 100,
            events: Vec::new(),
            lists: 0,
            watches: 0,
            pages: 0,
            snapshots: HashMap::new(),
            has_expired: false,
            forgotten: 0,
            ended: 0,
            mute: 0,
        };
        let shared = Shared {
            inside: Mutex::new(inside),
            news: watch::channel(0).0,
            gate: watch::channel(quirk != Quirk::Waits).0,
            lets_watch: watch::channel(true).0,
            asked_to_watch: watch::channel(0).0,
            watched: watch::channel(0).0,
            asked_for_pages: watch::channel(0).0,
            lets_pages: watch::channel(usize::MAX).0,
        };
        let (inside, stop) = (Arc::new(shared), CancellationToken::new());
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let tls =
            tls.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/v1/pods", get(pods_of_all))
            .route("/api/v1/namespaces/{namespace}/pods", get(pods_of_one))
            .with_state(inside.clone());
        tokio::spawn(run_listener(listener, tls, router, 16, stop.clone()));
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(certified.cert.pem())}}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let certificate = certified.cert.pem();
        Cluster { inside, kubeconfig, address, certificate, _folder: folder, _stop: stop.drop_guard() }
    }

    /// Refuses whoever asks for other pods than these.
    pub fn expect_selector(&self, selector: &'static str) {
        self.inside.lock().selector = selector;
    }

    /// Puts a pod in this state; `status` is its status.
    pub fn put(&self, name: &str, status: Value) {
        self.put_labelled("lab", name, json!({"app": "agent"}), status);
    }

    /// Puts a pod with these labels into a namespace.
    pub fn put_labelled(&self, namespace: &str, name: &str, labels: Value, status: Value) {
        self.put_as(&format!("uid-{name}"), namespace, name, labels, status);
    }

    /// Puts a pod with this uid.
    pub fn put_as(&self, uid: &str, namespace: &str, name: &str, labels: Value, status: Value) {
        let mut inside = self.inside.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let kind = if inside.pods.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        inside.version += 1;
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace,
            "uid": uid, "resourceVersion": inside.version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels},
            "spec": {"nodeName": "node-1", "containers": []}, "status": status});
        inside.pods.insert(key, pod.clone());
        self.happens(inside, kind, pod);
    }

    /// Deletes a pod.
    pub fn delete(&self, name: &str) {
        let mut inside = self.inside.lock();
        let mut pod = inside.pods.remove(&("lab".to_owned(), name.to_owned())).unwrap();
        inside.version += 1;
        pod["metadata"]["resourceVersion"] = inside.version.to_string().into();
        self.happens(inside, "DELETED", pod);
    }

    fn happens(&self, mut inside: MutexGuard<'_, Inside>, kind: &str, pod: Value) {
        let version = inside.version;
        inside.events.push((version, json!({"type": kind, "object": pod})));
        drop(inside);
        self.inside.news.send_replace(version);
    }

    /// Time passes in which nothing happens to these pods: whoever watches is told up to where that is.
    pub fn bookmark(&self) {
        let mut inside = self.inside.lock();
        inside.version += 1;
        let version = inside.version.to_string();
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": version}});
        self.happens(inside, "BOOKMARK", object);
    }

    /// Forgets all that has happened so far: nobody can go on from before.
    pub fn forget(&self) {
        let mut inside = self.inside.lock();
        inside.forgotten = inside.version;
    }

    /// Ends all watches there are, in order, once they have said what they have to say.
    pub fn end_watches(&self) {
        let mut inside = self.inside.lock();
        inside.ended = inside.watches;
        drop(inside);
        self.inside.news.send_modify(|_| {});
    }

    /// All watches there are fall silent, and their connections stay.
    pub fn fall_silent(&self) {
        let mut inside = self.inside.lock();
        inside.mute = inside.watches;
    }

    /// Waits until so many pages of lists were asked for.
    pub async fn asked_for_pages(&self, pages: usize) {
        self.inside.asked_for_pages.subscribe().wait_for(|asked| *asked >= pages).await.unwrap();
    }

    /// Answers so many pages of lists, all in all, and keeps whoever asks for more waiting.
    pub fn let_pages(&self, pages: usize) {
        self.inside.lets_pages.send_replace(pages);
    }

    /// Lets answers through from now on.
    pub fn open(&self) {
        self.inside.gate.send_replace(true);
    }

    /// Keeps watches waiting from now on, or lets them through.
    pub fn let_watch(&self, lets: bool) {
        self.inside.lets_watch.send_replace(lets);
    }

    /// Waits until somebody has asked to watch: whoever does has been given a list before.
    pub async fn asked_to_watch(&self) {
        self.inside.asked_to_watch.subscribe().wait_for(|count| *count > 0).await.unwrap();
    }

    /// Waits until so many watches were let in.
    pub async fn watched_times(&self, times: usize) {
        self.inside.watched.subscribe().wait_for(|count| *count >= times).await.unwrap();
    }

    /// How many lists, pages of lists, and watches there were.
    pub fn asked(&self) -> (usize, usize, usize) {
        let inside = self.inside.lock();
        (inside.lists, inside.pages, inside.watches)
    }
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"})
}

async fn pods_of_all(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response<Body> {
    pods(shared, None, query, headers).await
}

async fn pods_of_one(
    State(shared): State<Arc<Shared>>,
    Path(namespace): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response<Body> {
    pods(shared, Some(namespace), query, headers).await
}

async fn pods(
    shared: Arc<Shared>,
    namespace: Option<String>,
    query: HashMap<String, String>,
    headers: HeaderMap,
) -> Response<Body> {
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let selector = shared.lock().selector;
    if bearer != Some(&format!("Bearer {TOKEN}"))
        || query.get("labelSelector").map(String::as_str) != Some(selector)
    {
        return answer(StatusCode::FORBIDDEN, Body::empty());
    }
    shared.gate.subscribe().wait_for(|is_open| *is_open).await.unwrap();
    match query.get("watch") {
        Some(_) => {
            shared.asked_to_watch.send_modify(|count| *count += 1);
            shared.lets_watch.subscribe().wait_for(|lets| *lets).await.unwrap();
            watching(shared, namespace, &query)
        }
        None => {
            let page = {
                let mut inside = shared.lock();
                inside.pages += 1;
                shared.asked_for_pages.send_replace(inside.pages);
                inside.pages
            };
            shared.lets_pages.subscribe().wait_for(|lets| page <= *lets).await.unwrap();
            listed(&shared, namespace.as_deref(), &query)
        }
    }
}

/// A page of a list. All pages of one show the same moment.
fn listed(shared: &Shared, namespace: Option<&str>, query: &HashMap<String, String>) -> Response<Body> {
    let mut inside = shared.lock();
    let limit: usize = query["limit"].parse().unwrap();
    let (version, from) = match query.get("continue").and_then(|token| token.split_once('-')) {
        Some((version, from)) => (version.parse().unwrap(), from.parse().unwrap()),
        None => (inside.version, 0_usize),
    };
    if from == 0 {
        inside.lists += 1;
        let of_it = |key: &(String, String)| namespace.is_none_or(|namespace| namespace == key.0);
        let all = inside.pods.iter().filter(|(key, _)| of_it(key)).map(|(_, pod)| pod.clone()).collect();
        inside.snapshots.insert(version, all);
    } else if inside.quirk == Quirk::PagesExpire && !std::mem::replace(&mut inside.has_expired, true) {
        return answer(StatusCode::GONE, Body::from(expired().to_string()));
    }
    let all = &inside.snapshots[&version];
    let items: Vec<&Value> = all.iter().skip(from).take(limit).collect();
    let next = from + items.len();
    let more = if next < all.len() { format!("{version}-{next}") } else { String::new() };
    let list = json!({"kind": "PodList", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": version.to_string(), "continue": more}});
    answer(StatusCode::OK, Body::from(list.to_string()))
}

/// The status of a pod whose agent runs.
pub fn runs() -> Value {
    json!({"phase": "Running", "containerStatuses": [{"name": "agent", "image": "i", "imageID": "", "ready": true,
        "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]})
}

/// Of one whose container ended after every claim of these tests.
pub fn ended(phase: &str, code: i32, reason: &str) -> Value {
    json!({"phase": phase, "containerStatuses": [{"name": "agent", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason, "containerID": "c://1",
            "finishedAt": "2099-01-01T00:01:00Z"}}}]})
}
