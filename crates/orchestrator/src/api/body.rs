//! Request bodies: bounded in size and time, read whole, and parsed so that an error names its place.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// A body must have come within this: the longest call of an agent's, three times over.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// A JSON body of at most `MAX` bytes.
#[derive(Debug)]
pub struct Json<T, const MAX: usize = { groundcrew_protocol::limits::BODY_BYTES_MAX }>(pub T);

impl<T: DeserializeOwned, S: Send + Sync, const MAX: usize> FromRequest<S> for Json<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        expect_type(request.headers(), "application/json")?;
        let bytes = read(request, MAX).await?;
        parse(&bytes).map(Json)
    }
}

/// A body of bytes of at most `MAX` bytes, of any type.
#[derive(Debug)]
pub struct Raw<const MAX: usize>(pub Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for Raw<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        read(request, MAX).await.map(Raw)
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

async fn read(request: Request, bytes_max: usize) -> Result<Bytes, ApiError> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok());
    if let Some(length) = declared.and_then(|text| text.parse::<u64>().ok())
        && length > bytes_max as u64
    {
        return Err(too_large(bytes_max));
    }
    let read = Limited::new(request.into_body(), bytes_max).collect();
    match tokio::time::timeout(BODY_TIME_MAX, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(error)) => Err(ApiError::bad(format!("the body could not be read: {error}"))),
        Err(_elapsed) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow",
            format!("the body did not come within {} s", BODY_TIME_MAX.as_secs()),
        )),
    }
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
