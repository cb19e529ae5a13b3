//! The API, one function a call: thin, so that what is printed as JSON is what the orchestrator said.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use groundcrew_client::{Client, Error, EventStream};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::{LogView, RunView};
use groundcrew_protocol::report::Report;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Refusal;

/// Over one call.
const LIMIT: Duration = Duration::from_millis(limits::CALL_TIMEOUT_MS);
/// A report is put together from everything that a run has.
const REPORT_LIMIT: Duration = Duration::from_secs(60);
/// The largest package at 10 Mbit/s, as the orchestrator waits for it.
const UPLOAD_LIMIT: Duration = Duration::from_secs(3_600);
/// A report with the log's tails and every sensor's series; a page of log.
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Lines of a page of log.
const LOG_LINES: u32 = 5_000;

/// The orchestrator, as an operator asks it.
pub(crate) struct Api {
    client: Client,
}

/// An answer, as it came.
pub(crate) struct Answer(pub(crate) Bytes);

impl Answer {
    /// What it says.
    ///
    /// # Errors
    /// Where it has not the shape that this version knows.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.0).context("reading the orchestrator's answer")
    }

    /// Its text, for one that is no JSON.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl Api {
    /// Asks through this client.
    pub(crate) fn new(client: Client) -> Api {
        Api { client: client.with_answer_bytes_max(ANSWER_BYTES_MAX) }
    }

    /// Asks.
    ///
    /// # Errors
    /// A refusal, in the orchestrator's words, or why there was no answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends something as JSON. Errors as [`get`](Self::get).
    pub(crate) async fn post<T: Serialize>(&self, path: &str, body: &T) -> Result<Answer> {
        self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    /// The same, to put something in a place. Errors as [`get`](Self::get).
    pub(crate) async fn put<T: Serialize>(&self, path: &str, body: &T) -> Result<Answer> {
        self.send(Method::PUT, path, serde_json::to_vec(body)?.into()).await
    }

    /// Sends JSON that is already written, or nothing. Errors as [`get`](Self::get).
    pub(crate) async fn send(&self, method: Method, path: &str, json: Bytes) -> Result<Answer> {
        Ok(Answer(self.client.send(method, path, json, LIMIT).await.map_err(explained)?))
    }

    /// Puts the text of a profile in its place. Errors as [`get`](Self::get).
    pub(crate) async fn put_profile(&self, name: &str, text: String) -> Result<Answer> {
        let path = format!("/api/v1/profiles/{name}");
        let answer: serde_json::Value =
            self.client.put_bytes(&path, text.into(), LIMIT).await.map_err(explained)?;
        Ok(Answer(serde_json::to_vec(&answer)?.into()))
    }

    /// What is there, or that nothing is. Errors as [`get`](Self::get).
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Answer>> {
        match self.client.send(Method::GET, path, Bytes::new(), LIMIT).await {
            Ok(bytes) => Ok(Some(Answer(bytes))),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(explained(error)),
        }
    }

    /// Puts a file in its place. Errors as [`get`](Self::get).
    pub(crate) async fn put_file(&self, path: &str, file: std::fs::File, bytes: u64) -> Result<Answer> {
        Ok(Answer(self.client.put_file(path, file, bytes, UPLOAD_LIMIT).await.map_err(explained)?))
    }

    /// A run in full.
    ///
    /// # Errors
    /// The client's, so that a follower knows whether to ask again.
    pub(crate) async fn run(&self, run: &RunId) -> Result<RunView, Error> {
        self.client.get_json(&run_path(run, ""), LIMIT).await
    }

    /// A run's events after one of them. Errors as [`run`](Self::run).
    pub(crate) async fn events(&self, run: &RunId, after: u64) -> Result<EventStream, Error> {
        let after = (after > 0).then(|| after.to_string());
        self.client.events(&run_path(run, "/events"), after.as_deref(), LIMIT).await
    }

    /// A page of log, from a place on. Errors as [`run`](Self::run).
    pub(crate) async fn log_page(
        &self,
        run: &RunId,
        stage: Option<&str>,
        after: Option<&str>,
    ) -> Result<(Bytes, LogView), Error> {
        let limit = LOG_LINES.to_string();
        let path =
            run_path(run, "/logs") + &query(&[("stage", stage), ("after", after), ("limit", Some(&limit))]);
        let bytes = self.client.get_bytes(&path, LIMIT).await?;
        let page = serde_json::from_slice(&bytes)
            .map_err(|source| Error::BadAnswer { call: format!("GET {path}"), source })?;
        Ok((bytes, page))
    }

    /// A run's report. Errors as [`get`](Self::get).
    pub(crate) async fn report(&self, run: &RunId) -> Result<(Bytes, Report)> {
        let bytes =
            self.client.get_bytes(&run_path(run, "/report"), REPORT_LIMIT).await.map_err(explained)?;
        let report = serde_json::from_slice(&bytes).context("reading the orchestrator's report")?;
        Ok((bytes, report))
    }

    /// The content of an artifact. Errors as [`get`](Self::get).
    pub(crate) async fn artifact(&self, path: &str) -> Result<Bytes> {
        self.client.get_bytes(path, REPORT_LIMIT).await.map_err(explained)
    }

    /// The same as a page. Errors as [`get`](Self::get).
    pub(crate) async fn report_page(&self, run: &RunId) -> Result<Bytes> {
        let path = run_path(run, "/report?format=html");
        self.client.get_bytes(&path, REPORT_LIMIT).await.map_err(explained)
    }
}

/// The path of something of a run.
pub(crate) fn run_path(run: &RunId, of_it: &str) -> String {
    format!("/api/v1/runs/{run}{of_it}")
}

/// A query of what is given; empty where nothing is.
pub(crate) fn query(parts: &[(&str, Option<&str>)]) -> String {
    let given =
        parts.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={}", encoded(value))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { String::new() } else { format!("?{}", given.join("&")) }
}

/// A value as one part of a path or query: every byte that is not unreserved (RFC 3986, section 2.3) in hexadecimal.
pub(crate) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// A refusal in the orchestrator's own words; anything else with its causes.
pub(crate) fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Status { code, body, .. } if !body.error.is_empty() => {
            let text = match code {
                401 => format!("the orchestrator does not take this token: {}", body.error),
                code => format!("{} ({code})", body.error),
            };
            Refusal { text, code: body.code.clone(), status: *code }.into()
        }
        Error::WrongPin { .. } => anyhow!(
            "{error}; if its certificate was rotated, set --fpr to what `groundcrewd fingerprint` prints there"
        ),
        _ => anyhow!("{}", error.chain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_path_stays_one_part_of_it() {
        assert_eq!(encoded("Package:a/b c&d=é"), "Package%3Aa%2Fb%20c%26d%3D%C3%A9");
        assert_eq!(query(&[("a", None), ("b", None)]), "");
        assert_eq!(query(&[("a", Some("x/y")), ("b", None), ("c", Some("1"))]), "?a=x%2Fy&c=1");
    }
}
