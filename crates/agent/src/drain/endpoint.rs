//! Who asks on this machine: over a unix socket in the home, which only its owner can open, and over loopback HTTP with a
//! secret where settings name one.
//!
//! ```text
//!   GET  /api/status           how the agent stands, after a look at the marker that its control loop has seen
//!   POST /api/gateway/drain    {action: begin|cancel, suppress_notification, principal}
//! ```

use std::sync::Arc;
use std::time::Duration;

use groundcrew_durable::drain_marker::Principal;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http::{self, Parsed, REQUEST_BYTES_MAX, Request};
use super::secret::SecretFile;
use super::status::{Busy, Fixed, Standing, Status};
use super::watcher::{Change, Watcher};
use crate::errors;

/// Connections at a time, of each listener. Who asks does so now and then.
const CONNECTIONS_MAX: usize = 8;
/// A request and its answer: the marker's thread and the control loop each have their own limit below it.
const CONNECTION: Duration = Duration::from_secs(20);
/// For how long the control loop may take to see a look: it may wait for a durable write.
const SEEN: Duration = Duration::from_secs(8);
/// A listener that cannot accept (no descriptor left) tries again after this.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// What answers.
#[derive(Clone)]
pub struct Endpoint {
    /// Looks at the marker, and changes it.
    pub watcher: Watcher,
    /// Where the control loop stands.
    pub standing: watch::Receiver<Standing>,
    /// What does not change.
    pub fixed: Fixed,
    /// What the active work is busy with. It waits for no disk.
    pub busy: Arc<dyn Fn() -> Busy + Send + Sync>,
}

/// What is asked of the drain.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Begin,
    Cancel,
}

#[derive(Debug, Deserialize)]
struct DrainRequest {
    action: Action,
    #[serde(default)]
    suppress_notification: bool,
    #[serde(default)]
    principal: Option<String>,
}

impl Endpoint {
    /// Answers on the socket in the home, until it is dropped: who can open it may ask.
    pub async fn run_socket(self, listener: UnixListener) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if tasks.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => drop(tasks.spawn(timeout(CONNECTION, self.clone().serve(stream, None)))),
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// Answers on a loopback address: who shows the secret may ask.
    pub async fn run_http(self, listener: TcpListener, secret: SecretFile) {
        let secret = Arc::new(secret);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if tasks.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => {
                        let serve = self.clone().serve(stream, Some(secret.clone()));
                        drop(tasks.spawn(timeout(CONNECTION, serve)));
                    }
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin, secret: Option<Arc<SecretFile>>) {
        let (status, body) = match read_request(&mut stream).await {
            Some(Ok(request)) => match allowed(&request, secret).await {
                Ok(()) => self.answer(&request).await,
                Err(refused) => refused,
            },
            Some(Err((status, why))) => (status, error_body(why)),
            None => return, // It was closed, or broke off.
        };
        // Whoever asked may be gone.
        let _nobody_reads = stream.write_all(&http::answer(status, &body)).await;
        let _nobody_reads = stream.shutdown().await;
    }

    async fn answer(&self, request: &Request) -> (u16, String) {
        match (request.path.as_str(), request.method.as_str()) {
            ("/api/status", "GET") => match self.status().await {
                Ok(status) => (200, json(&status)),
                Err(why) => (503, error_body(&why)),
            },
            ("/api/gateway/drain", "POST") => self.change(&request.body).await,
            ("/api/status", _) => (405, error_body("expected GET")),
            ("/api/gateway/drain", _) => (405, error_body("expected POST")),
            (_, _) => (404, error_body("expected /api/status or /api/gateway/drain")),
        }
    }

    /// How the agent stands, after a look that was made for this and that the control loop has seen.
    async fn status(&self) -> Result<Status, String> {
        let sight = self.watcher.look().await;
        let mut standing = self.standing.clone();
        if let Some(sight) = &sight {
            let has_seen =
                |standing: &Standing| standing.sight.as_ref().is_some_and(|seen| seen.number >= sight.number);
            let seen = timeout(SEEN, standing.wait_for(has_seen)).await;
            if !matches!(seen, Ok(Ok(_))) {
                return Err(format!("the control loop has not seen the marker within {} s", SEEN.as_secs()));
            }
        }
        let standing = standing.borrow().clone();
        Ok(Status::of(&standing, sight.is_some(), &self.fixed, &(self.busy)()))
    }

    async fn change(&self, body: &[u8]) -> (u16, String) {
        let asked: DrainRequest = match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => return (400, error_body(&format!("expected {{action: begin|cancel}}: {error}"))),
        };
        if let Some(Err(error)) = asked.principal.as_deref().map(str::parse::<Principal>) {
            return (400, error_body(&format!("principal: {error}")));
        }
        let quiet = asked.suppress_notification;
        let (word, change) = match asked.action {
            Action::Begin => {
                let principal = asked.principal.unwrap_or_else(|| Principal::default().to_string());
                ("begin", Change::Begin { principal, quiet })
            }
            Action::Cancel => ("cancel", Change::Cancel { principal: asked.principal }),
        };
        if let Err(why) = self.watcher.change(change).await {
            return (503, error_body(&why));
        }
        match self.status().await {
            Ok(status) => {
                let body = json!({"action": word, "suppress_notification": quiet, "status": status});
                (200, body.to_string())
            }
            Err(why) => (503, error_body(&why)),
        }
    }
}

/// Whether the request may be answered. Without a secret the socket's mode has decided that.
async fn allowed(request: &Request, secret: Option<Arc<SecretFile>>) -> Result<(), (u16, String)> {
    let Some(secret) = secret else { return Ok(()) };
    let shown = request.bearer.clone().unwrap_or_default();
    // A disk that hangs holds up this request alone.
    let checked = tokio::task::spawn_blocking(move || secret.is(&shown)).await;
    match checked {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err((401, error_body("the bearer secret is missing or wrong"))),
        Ok(Err(error)) => {
            Err((503, error_body(&format!("the secret cannot be checked: {}", errors::chain(&error)))))
        }
        Err(_) => Err((503, error_body("the secret cannot be checked"))),
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Result<Request, (u16, &'static str)>> {
    let mut bytes = Vec::new();
    let mut part = [0; 2048];
    loop {
        let count = stream.read(&mut part).await.ok()?;
        bytes.extend_from_slice(&part[..count]);
        match http::parse(&bytes) {
            Parsed::Whole(request) => return Some(Ok(request)),
            Parsed::Bad(status, why) => return Some(Err((status, why))),
            Parsed::More if count == 0 => return None,
            // The parser refuses what is longer; this is for a body that lies about its length.
            Parsed::More if bytes.len() > 2 * REQUEST_BYTES_MAX => {
                return Some(Err((413, "the request is too long")));
            }
            Parsed::More => {}
        }
    }
}

fn error_body(why: &str) -> String {
    json!({"error": why}).to_string()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types serialise")
}
