//! Calls: one question, one bounded answer, one time limit over everything from the name lookup on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use groundcrew_protocol::ids::TokenText;
use groundcrew_protocol::wire::ErrorBody;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RANGE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::connect::{Connection, connect, tls_config};
use crate::download::Download;
use crate::error::Error;
use crate::events::EventStream;
use crate::outgoing::Outgoing;
use crate::pins::PinSet;
use crate::resolve::Names;
use crate::url::BaseUrl;

/// Greatest answer, unless the caller says otherwise: a claim's answer with 64 stages and a plan of 4096 checks.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of an answer that explains nothing, this much goes into the error.
const UNEXPLAINED_CHARACTERS: usize = 200;

/// Asks one orchestrator. It keeps at most one idle connection; who wants two that cannot delay each other
/// (control and logs) makes two clients. Calls at the same time open more, and close them afterwards.
pub struct Client {
    base: BaseUrl,
    names: Names,
    pins: PinSet,
    tls: Arc<rustls::ClientConfig>,
    bearer: Mutex<Option<TokenText>>,
    answer_bytes_max: usize,
    idle: Mutex<Option<Connection>>,
}

impl std::fmt::Debug for Client {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).field("pins", &self.pins).finish_non_exhaustive()
    }
}

/// One call, as words.
struct Call<'a> {
    method: Method,
    path: &'a str,
    content: Content,
}

/// What a call carries.
enum Content {
    Nothing,
    Json(Bytes),
    Raw(Bytes),
}

impl Call<'_> {
    fn words(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Whether a failed call may be made once more on a fresh connection: the server may have closed a kept one
/// at the moment it was used.
struct Failed {
    error: Error,
    on_kept_connection: bool,
}

impl Client {
    /// A client of the orchestrator at `base`. Nothing is sent yet.
    pub fn new(base: BaseUrl, pins: PinSet, bearer: Option<TokenText>) -> Client {
        let tls = tls_config(pins.clone());
        Client {
            base,
            names: Names::default(),
            pins,
            tls,
            bearer: Mutex::new(bearer),
            answer_bytes_max: ANSWER_BYTES_MAX,
            idle: Mutex::new(None),
        }
    }

    /// Looks names up elsewhere.
    pub fn with_names(mut self, names: Names) -> Client {
        self.names = names;
        self
    }

    /// Takes answers of up to this many bytes (4 MiB unless said).
    pub fn with_answer_bytes_max(mut self, bytes_max: usize) -> Client {
        self.answer_bytes_max = bytes_max;
        self
    }

    /// The pins that count, shared: a replacement there counts for the next connection of this client.
    pub fn pins(&self) -> &PinSet {
        &self.pins
    }

    /// Who is asked.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Uses another token from the next call on.
    pub fn set_bearer(&self, bearer: Option<TokenText>) {
        *self.bearer.lock().unwrap_or_else(PoisonError::into_inner) = bearer;
    }

    /// Closes the kept connection, so that the next call shows whether the pins still fit.
    pub fn disconnect(&self) {
        self.take_idle();
    }

    /// Sends `body` as JSON and reads the JSON answer.
    ///
    /// # Errors
    /// Every variant of [`Error`]; [`Error::Timeout`] once `limit` has passed over all of it.
    pub async fn call<Req: Serialize, Res: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Req,
        limit: Duration,
    ) -> Result<Res, Error> {
        let json = serde_json::to_vec(body).map_err(|error| Error::Unsendable {
            call: format!("{method} {path}"),
            why: error.to_string(),
        })?;
        self.answer(Call { method, path, content: Content::Json(json.into()) }, limit).await
    }

    /// Sends JSON that is already written. Errors as [`call`](Self::call).
    pub async fn call_json<Res: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: Bytes,
        limit: Duration,
    ) -> Result<Res, Error> {
        self.answer(Call { method, path, content: Content::Json(json) }, limit).await
    }

    /// Asks for JSON. Errors as [`call`](Self::call).
    pub async fn get_json<Res: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<Res, Error> {
        self.answer(Call { method: Method::GET, path, content: Content::Nothing }, limit).await
    }

    /// Asks for bytes, as a report's page. Errors as [`call`](Self::call).
    pub async fn get_bytes(&self, path: &str, limit: Duration) -> Result<Bytes, Error> {
        self.bytes(Call { method: Method::GET, path, content: Content::Nothing }, limit).await
    }

    /// Puts raw bytes, as an artifact, and reads the JSON answer. Errors as [`call`](Self::call).
    pub async fn put_bytes<Res: DeserializeOwned>(
        &self,
        path: &str,
        content: Bytes,
        limit: Duration,
    ) -> Result<Res, Error> {
        self.answer(Call { method: Method::PUT, path, content: Content::Raw(content) }, limit).await
    }

    /// Puts a file of so many bytes, as a package, on a connection of its own, and returns the answer as it came. It is read
    /// as it is sent. Errors as [`send`](Self::send).
    pub async fn put_file(
        &self,
        path: &str,
        file: std::fs::File,
        bytes: u64,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        let call = Call { method: Method::PUT, path, content: Content::Raw(Bytes::new()) };
        let words = call.words();
        in_time(limit, &words, async {
            let mut request = self.request(&call)?;
            *request.body_mut() = Outgoing::File { file, left: bytes };
            let mut connection = self.open().await?;
            let response = self.answered(&mut connection, request).await;
            let response = response.map_err(|source| Error::Broken { call: words.clone(), source })?;
            let code = response.status();
            let body = self.body(&words, response).await?;
            if code.is_success() { Ok(body) } else { Err(status_error(words.clone(), code.as_u16(), &body)) }
        })
        .await
    }

    /// Sends JSON that is already written, or nothing where it is empty, and returns the answer as it came: also one
    /// without content. Errors as [`call`](Self::call), but for [`Error::BadAnswer`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        json: Bytes,
        limit: Duration,
    ) -> Result<Bytes, Error> {
        let content = if json.is_empty() { Content::Nothing } else { Content::Json(json) };
        self.bytes(Call { method, path, content }, limit).await
    }

    /// Asks for all from byte `from` on of something large, as a package, on a connection of its own. `limit` is for the start;
    /// afterwards it waits as long as each wait of its reader says.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`Error::OtherPart`].
    pub async fn download(&self, path: &str, from: u64, limit: Duration) -> Result<Download, Error> {
        let call = Call { method: Method::GET, path, content: Content::Nothing };
        let words = call.words();
        let mut request = self.request(&call)?;
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-"));
            request.headers_mut().insert(RANGE, range.expect("digits fit a header"));
        }
        let (connection, response) = in_time(limit, &words, self.opened(&words, request)).await?;
        Download::new(words, connection, response, from)
    }

    /// Sends a request on a connection of its own, whose answer is then read as it comes. A refusal is an error.
    async fn opened(
        &self,
        words: &str,
        request: Request<Outgoing>,
    ) -> Result<(Connection, Response<Incoming>), Error> {
        let mut connection = self.open().await?;
        let response = self.answered(&mut connection, request).await;
        let response = response.map_err(|source| Error::Broken { call: words.to_owned(), source })?;
        if !response.status().is_success() {
            let code = response.status().as_u16();
            let body = self.body(words, response).await?;
            return Err(status_error(words.to_owned(), code, &body));
        }
        Ok((connection, response))
    }

    /// Follows server-sent events on a connection of its own. With `last_event_id` those after it come first.
    /// `limit` is for the start; afterwards the stream waits as long as each wait of its reader says.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn events(
        &self,
        path: &str,
        last_event_id: Option<&str>,
        limit: Duration,
    ) -> Result<EventStream, Error> {
        let call = Call { method: Method::GET, path, content: Content::Nothing };
        let words = call.words();
        let mut request = self.request(&call)?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_event_id {
            let value = HeaderValue::from_str(id).map_err(|error| unsendable(&words, error))?;
            request.headers_mut().insert("last-event-id", value);
        }
        let (connection, response) = in_time(limit, &words, self.opened(&words, request)).await?;
        Ok(EventStream::new(words, connection, response.into_body()))
    }

    async fn answer<Res: DeserializeOwned>(&self, call: Call<'_>, limit: Duration) -> Result<Res, Error> {
        let words = call.words();
        let body = self.bytes(call, limit).await?;
        serde_json::from_slice(&body).map_err(|source| Error::BadAnswer { call: words, source })
    }

    async fn bytes(&self, call: Call<'_>, limit: Duration) -> Result<Bytes, Error> {
        let words = call.words();
        in_time(limit, &words, async {
            match self.once(&call).await {
                // Every call of this protocol may be repeated, so that nothing is done twice by this.
                Err(Failed { on_kept_connection: true, .. }) => {
                    self.once(&call).await.map_err(|failed| failed.error)
                }
                other => other.map_err(|failed| failed.error),
            }
        })
        .await
    }

    async fn once(&self, call: &Call<'_>) -> Result<Bytes, Failed> {
        let fresh = |error| Failed { error, on_kept_connection: false };
        let request = self.request(call).map_err(fresh)?;
        let kept = self.take_idle().filter(|connection| !connection.sender.is_closed());
        let on_kept_connection = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open().await.map_err(fresh)?,
        };
        let words = call.words();
        let broken = |source| {
            let error = Error::Broken { call: words.clone(), source };
            Failed { error, on_kept_connection }
        };
        connection.sender.ready().await.map_err(broken)?;
        let response = self.answered(&mut connection, request).await.map_err(broken)?;
        let code = response.status();
        let body = self.body(&words, response).await.map_err(fresh)?;
        self.keep(connection);
        if code.is_success() { Ok(body) } else { Err(fresh(status_error(words, code.as_u16(), &body))) }
    }

    /// Sends a request, and takes in what its answer announces, whatever else it says.
    async fn answered(
        &self,
        connection: &mut Connection,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let response = connection.sender.send_request(request).await?;
        self.pins.hear(response.headers());
        Ok(response)
    }

    async fn open(&self) -> Result<Connection, Error> {
        connect(&self.base, &self.names, &self.pins, &self.tls).await
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a connection for the next call, unless one is kept already.
    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.is_none() && !connection.sender.is_closed() {
            *idle = Some(connection);
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Outgoing>, Error> {
        let (content, kind) = match &call.content {
            Content::Nothing => (Bytes::new(), None),
            Content::Json(bytes) => (bytes.clone(), Some("application/json")),
            Content::Raw(bytes) => (bytes.clone(), Some("application/octet-stream")),
        };
        let mut builder =
            Request::builder().method(call.method.clone()).uri(call.path).header(HOST, self.base.authority());
        if let Some(kind) = kind {
            builder = builder.header(CONTENT_TYPE, kind);
        }
        if let Some(token) = &*self.bearer.lock().unwrap_or_else(PoisonError::into_inner) {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.expect("a token is letters, digits and an underscore");
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        builder.body(Outgoing::Whole(Full::new(content))).map_err(|error| unsendable(&call.words(), error))
    }

    /// Reads the body up to the limit.
    async fn body(&self, call: &str, response: Response<Incoming>) -> Result<Bytes, Error> {
        let too_large = || Error::AnswerTooLarge { call: call.to_owned(), bytes_max: self.answer_bytes_max };
        let mut body = response.into_body();
        if body.size_hint().lower() > self.answer_bytes_max as u64 {
            return Err(too_large());
        }
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| Error::Broken { call: call.to_owned(), source })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.answer_bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }
}

async fn in_time<T>(
    limit: Duration,
    call: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let late = |_| Error::Timeout { call: call.to_owned(), after_ms: limit.as_millis() as u64 };
    timeout(limit, work).await.map_err(late)?
}

fn unsendable(call: &str, error: impl std::fmt::Display) -> Error {
    Error::Unsendable { call: call.to_owned(), why: error.to_string() }
}

/// An answer that is a refusal. One that is not of our own making is shown as far as it is text.
fn status_error(call: String, code: u16, body: &[u8]) -> Error {
    let body = serde_json::from_slice::<ErrorBody>(body).unwrap_or_else(|_| {
        let shown: String = String::from_utf8_lossy(body)
            .chars()
            .filter(|character| !character.is_control())
            .take(UNEXPLAINED_CHARACTERS)
            .collect();
        ErrorBody {
            error: shown,
            code: "unexplained".to_owned(),
            state: None,
            claim: None,
            retry_after_s: None,
        }
    });
    Error::Status { call, code, body: Box::new(body) }
}
