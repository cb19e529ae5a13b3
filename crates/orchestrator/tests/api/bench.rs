//! An orchestrator in a folder of its own, and agents and operators that call it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use groundcrew_orchestrator::api::app::App;
use groundcrew_orchestrator::api::iperf3::Iperf3;
use groundcrew_orchestrator::serve::{Options, Server};
use groundcrew_orchestrator::store::StoreOptions;
use groundcrew_orchestrator::tls::seal::KeyFile;
use groundcrew_orchestrator::{api, dashboard};
use groundcrew_protocol::ids::{RandomId, TokenText};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// A profile with one stage that asks for one check.
pub const PROFILE: &str = "name = \"short\"\n[[stage]]\nname = \"Package:a/apply\"\n\
                           [[package]]\nname = \"a\"\nversion = \"1.0.0\"\npath = \"/srv/a\"\n";

/// How a bench serves: on loopback, any port.
pub fn options(data: PathBuf) -> Options {
    Options {
        agent_homes: None,
        kubernetes: None,
        notify: None,
        key: KeyFile::at(data.with_extension("key")),
        data,
        listen: ([127, 0, 0, 1], 0).into(),
        print_token_to: None,
        connections_max: 64,
        requests_per_second_max: 10_000,
        url: None,
        iperf3: Some(Iperf3 { port: 5201, link_mbps: None }),
        keeps_iperf3: false,
        clock_step_ms: None,
        store: StoreOptions::default(),
    }
}

/// An orchestrator with its router.
pub struct Bench {
    pub app: Arc<App>,
    pub operator: String,
    router: Router,
    folder: tempfile::TempDir,
    server: Server,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The answer in JSON, which must be of this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// An error of this status and code, with these words in its sentence.
    #[track_caller]
    pub fn expect_error(&self, status: u16, code: &str, words: &[&str]) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
        for word in words {
            assert!(body["error"].as_str().unwrap().contains(word), "{word:?} is missing in {body}");
        }
        body
    }
}

impl Bench {
    pub async fn start() -> Bench {
        Bench::with(|_| {}).await
    }

    pub async fn with(edit: impl FnOnce(&mut Options)) -> Bench {
        let data = tempfile::tempdir().unwrap();
        let mut options = options(data.path().join("data"));
        edit(&mut options);
        let server = Server::start(options, CancellationToken::new()).await.unwrap();
        let app = server.app();
        let mut routes = api::routes();
        routes.extend(dashboard::routes());
        let router = api::router(routes, app.clone());
        let operator = server.first_token.clone().unwrap();
        Bench { app, operator, router, folder: data, server }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Lets its server run to its end, with the stop asked for already.
    pub async fn stop(self) {
        self.app.stop.cancel();
        self.server.run().await.unwrap();
    }

    /// Sends a request and gives the answer without waiting for the end of its body.
    pub async fn open(&self, request: Request<Body>) -> http::Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Begins a request whose body has not come yet.
    pub fn begin(&self, request: Request<Body>) -> tokio::task::JoinHandle<http::Response<Body>> {
        let router = self.router.clone();
        tokio::spawn(async move { router.oneshot(request).await.unwrap() })
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: impl Into<Body>) -> Answer {
        self.send(request(method, path, token).body(body.into()).unwrap()).await
    }

    /// As the operator of the first token.
    pub async fn order(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.call(method, path, Some(&self.operator), body).await
    }

    /// A run of its own node with the short profile: its id and boot token.
    pub async fn make_run(&self, node: &str) -> (String, String) {
        let path = format!("/api/v1/nodes/{node}");
        self.order("PUT", &path, json!({ "name": node })).await.expect(200);
        let profile = self.call("PUT", "/api/v1/profiles/short", Some(&self.operator), PROFILE).await;
        profile.expect(200);
        let made = self.order("POST", "/api/v1/runs", json!({ "node": node, "profile": "short" })).await;
        let made = made.expect(201);
        (made["run"].as_str().unwrap().to_owned(), made["boot_token"].as_str().unwrap().to_owned())
    }

    /// A run that an agent has claimed and spoken under.
    pub async fn make_agent(&self, node: &str) -> Agent {
        let (run, boot) = self.make_run(node).await;
        let mut agent = Agent::new(run, boot);
        agent.claim(self).await.expect(200);
        agent.beat(self, json!({})).await.expect(200);
        agent
    }
}

pub fn request(method: &str, path: &str, token: Option<&str>) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    }
}

/// What an agent knows.
pub struct Agent {
    pub run: String,
    pub boot: String,
    pub token: TokenText,
    pub claim: u64,
    /// What its machine says of itself.
    pub serial: Option<&'static str>,
    /// The pod or process that it calls itself.
    pub runtime: Value,
    /// `durable` or `volatile`.
    pub home_kind: &'static str,
    home: RandomId,
    process: RandomId,
    machine_boots: u8,
}

impl Agent {
    pub fn new(run: String, boot: String) -> Agent {
        // Everything random of an agent comes from its boot token, which is.
        let hash = boot.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let bytes = |salt: u64| (hash ^ salt).to_le_bytes().repeat(4);
        Agent {
            run,
            boot,
            token: TokenText::run(bytes(1).try_into().unwrap()),
            claim: 0,
            serial: None,
            runtime: Value::Null,
            home_kind: "durable",
            machine_boots: 1,
            home: RandomId::from_bytes(bytes(2)[..16].try_into().unwrap()),
            process: RandomId::from_bytes(bytes(3)[..16].try_into().unwrap()),
        }
    }

    /// The agent's next process on the same home, which claims with the run token that it has stored.
    pub fn restart(&mut self) {
        self.restart_as(0x77);
    }

    /// As [`Agent::restart`], for a process of this number.
    pub fn restart_as(&mut self, number: u8) {
        self.process = RandomId::from_bytes([number; 16]);
        self.boot = self.token.as_str().to_owned();
    }

    /// The machine boots again, with the home that it has.
    pub fn boot_with_memory(&mut self) {
        self.machine_boots += 1;
        self.restart_as(self.machine_boots);
    }

    /// The machine boots again, and its agent has another home and run token: nothing of the one before is left.
    pub fn boot_without_memory(&mut self) {
        self.machine_boots += 1;
        let bytes = |salt: u8| [salt, self.machine_boots].repeat(16);
        self.token = TokenText::run(bytes(1).try_into().unwrap());
        self.home = RandomId::from_bytes(bytes(2)[..16].try_into().unwrap());
        self.process = RandomId::from_bytes(bytes(3)[..16].try_into().unwrap());
    }

    pub fn path(&self, call: &str) -> String {
        format!("/api/v1/runs/{}/{call}", self.run)
    }

    pub async fn claim(&mut self, bench: &Bench) -> Answer {
        let body = json!({
            "ip": "127.0.0.1", "boot_id": format!("11111111-2222-3333-4444-{:012}", self.machine_boots),
            "home": self.home_kind,
            "instance": self.home, "session": self.process, "token_sha256": self.token.sha256(),
            "known_claim": self.claim, "serial": self.serial, "runtime": self.runtime,
        });
        let answer = bench.call("POST", &self.path("claim"), Some(&self.boot), body.to_string()).await;
        if answer.status == StatusCode::OK {
            self.claim = answer.json()["claim"].as_u64().unwrap();
        }
        answer
    }

    pub async fn post(&self, bench: &Bench, call: &str, mut body: Value) -> Answer {
        if body.get("claim").is_none() {
            body["claim"] = self.claim.into();
        }
        bench.call("POST", &self.path(call), Some(self.token.as_str()), body.to_string()).await
    }

    pub async fn beat(&self, bench: &Bench, body: Value) -> Answer {
        self.post(bench, "heartbeat", body).await
    }

    /// A result that passes or fails the one check of the short profile.
    pub async fn result(&self, bench: &Bench, attempt: u32, passed: bool) -> Answer {
        let observed = match passed {
            true => json!({ "kind": "found", "text": "done" }),
            false => json!({ "kind": "missing", "what": "the tool" }),
        };
        let check = json!({ "name": "steps", "observed": observed, "verdict": "pass" });
        let body = json!({
            "made_under": self.claim, "stage": "Package:a/apply", "attempt": attempt, "passed": passed, "summary": "s",
            "checks": [check],
        });
        self.post(bench, "result", body).await
    }
}
