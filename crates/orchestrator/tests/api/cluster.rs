//! A cluster that does as a test tells it: lists pods in pages and watches them, over TLS, and errs in every way that a
//! real one may.

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
use bytes::Bytes;
use groundcrew_orchestrator::listen::run_listener;
use http::{HeaderMap, Response, StatusCode};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

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
    /// A watch is cut in the middle of each event.
    Cuts,
    /// Every event comes three times.
    Doubles,
    /// After each event all earlier ones come again, the oldest last.
    Reorders,
    /// Lists and watches are answered only once the test opens the gate.
    Waits,
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
        };
        let shared = Shared {
            inside: Mutex::new(inside),
            news: watch::channel(0).0,
            gate: watch::channel(quirk != Quirk::Waits).0,
            lets_watch: watch::channel(true).0,
            asked_to_watch: watch::channel(0).0,
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
        let mut inside = self.inside.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let kind = if inside.pods.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        inside.version += 1;
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace,
            "uid": format!("uid-{name}"), "resourceVersion": inside.version.to_string(),
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
        None => listed(&shared, namespace.as_deref(), &query),
    }
}

fn listed(shared: &Shared, namespace: Option<&str>, query: &HashMap<String, String>) -> Response<Body> {
    let mut inside = shared.lock();
    let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
    let limit: usize = query["limit"].parse().unwrap();
    inside.pages += 1;
    inside.lists += usize::from(from == 0);
    let of_it = |key: &(String, String)| namespace.is_none_or(|namespace| namespace == key.0);
    let all: Vec<&Value> = inside.pods.iter().filter(|(key, _)| of_it(key)).map(|(_, pod)| pod).collect();
    let items: Vec<Value> = all.iter().skip(from).take(limit).map(|pod| (*pod).clone()).collect();
    let next = from + items.len();
    let more = if next < all.len() { next.to_string() } else { String::new() };
    let list = json!({"kind": "PodList", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": inside.version.to_string(), "continue": more}});
    answer(StatusCode::OK, Body::from(list.to_string()))
}

/// What a watch says of the events behind `from`, and whether it ends then.
fn lines(inside: &Inside, namespace: Option<&str>, from: u64) -> (Vec<u8>, bool) {
    let of_it = |event: &Value| namespace.is_none_or(|one| event["object"]["metadata"]["namespace"] == one);
    let news: Vec<&(u64, Value)> =
        inside.events.iter().filter(|(version, event)| *version > from && of_it(event)).collect();
    let mut text = String::new();
    let mut say = |event: &Value| text.push_str(&format!("{event}\n"));
    let expires = matches!(inside.quirk, Quirk::Expires | Quirk::ExpiresAtOnce);
    if expires && !news.is_empty() {
        say(&json!({"type": "ERROR", "object": expired()}));
        return (text.into_bytes(), true);
    }
    for (version, event) in &news {
        say(event);
        match inside.quirk {
            Quirk::Bookmarks => {
                say(&json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1",
                    "metadata": {"resourceVersion": version.to_string()}}}));
                return (text.into_bytes(), true);
            }
            Quirk::Doubles => (0..2).for_each(|_| say(event)),
            Quirk::Reorders => {
                inside
                    .events
                    .iter()
                    .rev()
                    .filter(|(earlier, _)| earlier < version)
                    .for_each(|(_, event)| say(event));
            }
            Quirk::None | Quirk::Expires | Quirk::ExpiresAtOnce | Quirk::Cuts | Quirk::Waits => {}
        }
    }
    (text.into_bytes(), false)
}

fn watching(
    shared: Arc<Shared>,
    namespace: Option<String>,
    query: &HashMap<String, String>,
) -> Response<Body> {
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let is_too_old = {
        let mut inside = shared.lock();
        inside.watches += 1;
        inside.quirk == Quirk::ExpiresAtOnce && inside.version > from
    };
    if is_too_old {
        return answer(StatusCode::GONE, Body::from(expired().to_string()));
    }
    let news = shared.news.subscribe();
    let stream =
        futures_util::stream::unfold((shared, news, from, false), move |(shared, mut news, from, ends)| {
            let namespace = namespace.clone();
            async move {
                if ends {
                    // In the middle of a line: the connection is cut, not closed.
                    let is_cut = shared.lock().quirk == Quirk::Cuts && from > 0;
                    return is_cut.then(|| (Err(std::io::Error::other("cut")), (shared, news, 0, true)));
                }
                loop {
                    let ((bytes, ends), version, quirk) = {
                        let inside = shared.lock();
                        (lines(&inside, namespace.as_deref(), from), inside.version, inside.quirk)
                    };
                    if bytes.is_empty() {
                        news.changed().await.ok()?;
                        continue;
                    }
                    let rest = (shared, news, version, ends);
                    return Some(match quirk {
                        Quirk::Cuts => {
                            let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                            let (shared, news, version, _) = rest;
                            (Ok(half), (shared, news, version, true))
                        }
                        Quirk::None
                        | Quirk::Bookmarks
                        | Quirk::Expires
                        | Quirk::ExpiresAtOnce
                        | Quirk::Doubles
                        | Quirk::Reorders
                        | Quirk::Waits => (Ok::<Bytes, std::io::Error>(bytes.into()), rest),
                    });
                }
            }
        });
    answer(StatusCode::OK, Body::from_stream(stream))
}
