//! Request bodies: bounded in size and time, each and all together, read whole, and parsed so that an error names its
//! place.
//!
//! A body that waits for its rest costs memory, and a thousand callers may send one each. So every body has its bytes
//! from one [`Budget`] before it has them from the peer, and gives them back when its handler is done with it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use groundcrew_protocol::ids::Sha256Hex;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::app::App;
use super::error::ApiError;

/// A body must have come within this: the longest call of an agent's, three times over.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// The first bytes of a body, which are all of a heartbeat and of most results. They come out of a budget of their own, so
/// that long bodies never keep agents from being heard.
const FIRST_BYTES: usize = 4 * 1024;
/// What the first bytes of all bodies may hold: eight thousand agents that come back at once.
const FIRST_BUDGET_BYTES: usize = 32 * 1024 * 1024;
/// What the rest of all bodies may hold: four artifacts, or a thousand chunks of log.
const BUDGET_BYTES: usize = 64 * 1024 * 1024;
/// What the rest of the bodies under one token may hold: the largest body, and as much beside it as an agent's other
/// calls need.
const BUDGET_OF_TOKEN_BYTES: usize = 20 * 1024 * 1024;
/// The rest is taken in parts of this size as it comes, whatever length was announced.
const PART_BYTES: usize = 64 * 1024;

/// The bytes that request bodies may hold, all together and under one token.
#[derive(Debug)]
pub struct Budget {
    first: Arc<Semaphore>,
    rest: Arc<Semaphore>,
    by_token: Arc<ByToken>,
}

/// Bytes that are held under each token, by its hash.
type ByToken = Mutex<HashMap<Sha256Hex, usize>>;

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            first: Arc::new(Semaphore::new(FIRST_BUDGET_BYTES)),
            rest: Arc::new(Semaphore::new(BUDGET_BYTES)),
            by_token: Arc::default(),
        }
    }
}

impl Budget {
    /// Bytes that are free.
    pub fn free_bytes(&self) -> usize {
        self.first.available_permits() + self.rest.available_permits()
    }

    /// Takes the first bytes of a body.
    fn begin(&self) -> Result<Held, ApiError> {
        let first = take(&self.first, FIRST_BYTES)?;
        Ok(Held { bytes: FIRST_BYTES, _first: first, rest: None })
    }

    /// Takes more for a body whose first bytes are not all.
    fn take_more(&self, held: &mut Held, bytes: usize, headers: &HeaderMap) -> Result<(), ApiError> {
        let rest = held.rest.get_or_insert_with(|| {
            let token = headers.get(header::AUTHORIZATION).map(|token| token.as_bytes());
            let token = Sha256Hex::of(token.unwrap_or_default());
            Rest { token, bytes: 0, permit: None, by_token: self.by_token.clone() }
        });
        rest.count(bytes)?;
        let permit = take(&self.rest, bytes)?;
        match &mut rest.permit {
            Some(all) => all.merge(permit),
            None => rest.permit = Some(permit),
        }
        held.bytes += bytes;
        Ok(())
    }
}

fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let count = u32::try_from(bytes).expect("a body is at most some megabytes long");
    room.clone().try_acquire_many_owned(count).map_err(|_none| {
        ApiError::not_now(
            "the bodies that are being sent now take all the room there is for them; send it again",
        )
    })
}

/// What one body holds of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    bytes: usize,
    _first: OwnedSemaphorePermit,
    rest: Option<Rest>,
}

#[derive(Debug)]
struct Rest {
    token: Sha256Hex,
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
    by_token: Arc<ByToken>,
}

impl Rest {
    /// Counts bytes against the token.
    fn count(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut by_token = self.by_token.lock().expect("no holder of this lock panics");
        let used = by_token.get(&self.token).copied().unwrap_or(0) + bytes;
        if used > BUDGET_OF_TOKEN_BYTES {
            return Err(ApiError::not_now(format!(
                "the bodies that are being sent with this token are longer than {BUDGET_OF_TOKEN_BYTES} bytes together; \
                 send one after the other"
            )));
        }
        by_token.insert(self.token.clone(), used);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let mut by_token = self.by_token.lock().expect("no holder of this lock panics");
        let left = by_token.get(&self.token).map_or(0, |used| used.saturating_sub(self.bytes));
        match left {
            0 => by_token.remove(&self.token),
            left => by_token.insert(self.token.clone(), left),
        };
    }
}

/// A JSON body of at most `MAX` bytes, and what it holds of the budget: keep that for as long as the value.
#[derive(Debug)]
pub struct Json<T, const MAX: usize = { groundcrew_protocol::limits::BODY_BYTES_MAX }>(pub T, pub Held);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<App>> for Json<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        expect_type(request.headers(), "application/json")?;
        let (bytes, held) = read(request, MAX, &app.bodies).await?;
        Ok(Json(parse(&bytes)?, held))
    }
}

/// A body of bytes of at most `MAX` bytes, of any type, and what it holds of the budget.
#[derive(Debug)]
pub struct Raw<const MAX: usize>(pub Bytes, pub Held);

impl<const MAX: usize> FromRequest<Arc<App>> for Raw<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (bytes, held) = read(request, MAX, &app.bodies).await?;
        Ok(Raw(bytes, held))
    }
}

/// The query of a request; an error names the parameter.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Query(query))
            .map_err(|error| ApiError::bad(error.body_text()))
    }
}

/// 415 unless the body is of this type. A caller that names no type is taken at its word.
pub fn expect_type(headers: &HeaderMap, wanted: &str) -> Result<(), ApiError> {
    let Some(found) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let found = found.to_str().unwrap_or("bytes that are no text");
    let essence = found.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let error = format!("the body is of type {found:?}; expected {wanted}");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "type", error))
}

async fn read(request: Request, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Held), ApiError> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    match tokio::time::timeout(BODY_TIME_MAX, collect(request, bytes_max, budget)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            format!("the body did not come within {} s", BODY_TIME_MAX.as_secs()),
        )),
    }
}

/// Reads a body. What it holds grows with what has come, and never past what the budget gave for it.
async fn collect(request: Request, bytes_max: usize, budget: &Budget) -> Result<(Bytes, Held), ApiError> {
    let (parts, mut body) = request.into_parts();
    let mut held = budget.begin()?;
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad(format!("the body could not be read: {error}")))?;
        let Ok(part) = frame.into_data() else { continue };
        let length = bytes.len() + part.len();
        if length > bytes_max {
            return Err(too_large(bytes_max));
        }
        if length > held.bytes {
            // Twice what there is, so that a long body is moved a few times and not with each of its parts.
            let wanted = length.max(held.bytes * 2).next_multiple_of(PART_BYTES).min(bytes_max);
            let more = wanted - held.bytes;
            budget.take_more(&mut held, more, &parts.headers)?;
        }
        if bytes.is_empty() && body.is_end_stream() {
            return Ok((part, held));
        }
        bytes.reserve(held.bytes.min(bytes_max) - bytes.len());
        bytes.extend_from_slice(&part);
    }
    Ok((bytes.freeze(), held))
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!("the body is larger than {bytes_max} bytes, which is the most that this call takes"),
    )
}

/// Parses a body. The path of the field that is wrong is looked for only once something is.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|first| {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let error = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Ok(_) => format!("after the body: {first}"),
            Err(error) if error.path().iter().next().is_none() => format!("body: {}", error.inner()),
            Err(error) => format!("field {}: {}", error.path(), error.inner()),
        };
        ApiError::bad(error)
    })
}

/// An answer in JSON.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    // Serialising our own types into memory fails only for a map whose keys are no text, and none has such.
    let bytes = serde_json::to_vec(value).expect("our own types serialise");
    json_bytes(status, bytes.into())
}

/// An answer in JSON that is serialised already.
pub fn json_bytes(status: StatusCode, bytes: Bytes) -> Response {
    let mut response = Response::new(axum::body::Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 200 with JSON.
pub fn ok<T: Serialize>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundcrew_protocol::wire::{Heartbeat, LogRequest};

    fn error_of<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        let error = parse::<T>(text.as_bytes()).unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        format!("{error:?}")
    }

    #[test]
    fn an_error_names_field_found_and_expected() {
        let error = error_of::<LogRequest>(
            r#"{"lines": [{"ts": "", "level": "info", "text": ""}, {"ts": 7, "level": "info", "text": ""}]}"#,
        );
        for word in ["lines[1].ts", "integer `7`", "expected a string"] {
            assert!(error.contains(word), "{word} is missing in {error}");
        }
        assert!(error_of::<Heartbeat>("{").contains("EOF"), "{}", error_of::<Heartbeat>("{"));
        assert!(error_of::<Heartbeat>("{} x").contains("trailing"));
    }
}
