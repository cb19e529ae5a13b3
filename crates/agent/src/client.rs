//! The agent's calls to the orchestrator by their names.
//!
//! Each call asks once. The control loop and the forwarder decide when to ask again, each with a
//! [`Backoff`](crate::backoff::Backoff) of its own; each has an [`Orchestrator`] of its own too, so that logs never delay a heartbeat.

use std::time::Duration;

use bytes::Bytes;
use groundcrew_client::{BaseUrl, Client, Download, Error, PinSet};
use groundcrew_protocol::hold::{HoldAnswer, HoldRequest};
use groundcrew_protocol::ids::{
    Attempt, ClaimNumber, PackageName, PackageVersion, RunId, Sha256Hex, TokenText,
};
use groundcrew_protocol::limits::{CALL_TIMEOUT_MS, SHORT_CALL_TIMEOUT_MS};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{
    ClaimAnswer, ClaimRequest, Heartbeat, HeartbeatAnswer, Hello, HelloAnswer, Intent, IntentAnswer,
    ResultAnswer, ResultRequest, StreamAnswer, agent_path,
};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

const CALL: Duration = Duration::from_millis(CALL_TIMEOUT_MS);
const SHORT_CALL: Duration = Duration::from_millis(SHORT_CALL_TIMEOUT_MS);

/// One connection to the orchestrator of a run.
#[derive(Debug)]
pub struct Orchestrator {
    client: Client,
    run: RunId,
}

impl Orchestrator {
    /// For a run. Nothing is sent yet. `pins` is shared with every clone of it.
    pub fn new(base: BaseUrl, pins: PinSet, token: Option<TokenText>, run: RunId) -> Orchestrator {
        Orchestrator { client: Client::new(base, pins, token), run }
    }

    /// Uses another token from the next call on: the run token, once it is claimed.
    pub fn set_token(&self, token: TokenText) {
        self.client.set_bearer(Some(token));
    }

    /// The pins that count.
    pub fn pins(&self) -> &PinSet {
        self.client.pins()
    }

    /// First word. Errors as every call here: those of [`Client::call`].
    ///
    /// # Errors
    /// See there.
    pub async fn hello(&self, hello: &Hello) -> Result<HelloAnswer, Error> {
        self.post("hello", hello, CALL).await
    }

    /// Takes hold of the run.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn claim(&self, claim: &ClaimRequest) -> Result<ClaimAnswer, Error> {
        self.post("claim", claim, CALL).await
    }

    /// Says what is going on.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, Error> {
        self.post("heartbeat", heartbeat, SHORT_CALL).await
    }

    /// Asks before what cannot be taken back.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn intent(&self, intent: &Intent) -> Result<IntentAnswer, Error> {
        self.post("intent", intent, CALL).await
    }

    /// Hands an outcome over.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn result(&self, result: &ResultRequest) -> Result<ResultAnswer, Error> {
        self.post("result", result, CALL).await
    }

    /// Asks for the key of a hold.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn hold(&self, hold: &HoldRequest) -> Result<HoldAnswer, Error> {
        self.post("hold", hold, CALL).await
    }

    /// Hands raw output of a tool over.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn artifact(
        &self,
        stage: &Stage,
        attempt: Attempt,
        name: &str,
        claim: ClaimNumber,
        content: Bytes,
    ) -> Result<serde_json::Value, Error> {
        let sha256 = Sha256Hex::of(&content);
        let (stage, name) = (query_text(&stage.to_string()), query_text(name));
        let call =
            format!("artifact?stage={stage}&attempt={attempt}&name={name}&sha256={sha256}&claim={claim}");
        self.client.put_bytes(&agent_path(&self.run, &call), content, CALL).await
    }

    /// Asks for the archive of a package of the run, from a byte on. `limit` is for the start.
    ///
    /// # Errors
    /// As [`hello`](Self::hello), and [`Error::OtherPart`].
    pub async fn package(
        &self,
        name: &PackageName,
        version: &PackageVersion,
        from: u64,
        limit: Duration,
    ) -> Result<Download, Error> {
        // A version may hold a `+`, which stands for itself in a path.
        let path = agent_path(&self.run, &format!("package/{name}/{version}"));
        self.client.download(&path, from, limit).await
    }

    /// Hands over the body of a `log` or `sensor` call, as the spool has written it.
    ///
    /// # Errors
    /// As [`hello`](Self::hello).
    pub async fn stream(&self, call: &str, body: Bytes) -> Result<StreamAnswer, Error> {
        self.client.call_json(Method::POST, &agent_path(&self.run, call), body, SHORT_CALL).await
    }

    async fn post<Req: Serialize, Res: DeserializeOwned>(
        &self,
        call: &str,
        body: &Req,
        limit: Duration,
    ) -> Result<Res, Error> {
        self.client.call(Method::POST, &agent_path(&self.run, call), body, limit).await
    }
}

/// A text as a value in a query: everything but letters, digits and `-._~` as `%XX` (RFC 3986 section 2.3).
fn query_text(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_a_query_cannot_end_it() {
        assert_eq!(query_text("Package:a/b&c=d e#%ä"), "Package%3Aa%2Fb%26c%3Dd%20e%23%25%C3%A4");
    }
}
