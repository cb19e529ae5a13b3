//! Every answer that is an error: one JSON shape, a status, and a sentence that says what to do.

use axum::response::{IntoResponse, Response};
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::ErrorBody;
use http::{HeaderValue, StatusCode, header};

use crate::causes;
use crate::run::decide::Refused;

/// What a caller gets instead of an answer.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    error: Box<str>,
    state: Option<Box<State>>,
    claim: Option<ClaimNumber>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// An error with a word for programs and a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> ApiError {
        ApiError { status, code, error: error.into().into(), state: None, claim: None, retry_after_s: None }
    }

    /// 400: the request is not of its form.
    pub fn bad(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad", error)
    }

    /// 401: no token, or one that is not good here.
    pub fn token(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "token", error)
    }

    /// 404: there is no such thing.
    pub fn none(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "none", error)
    }

    /// 410: there was such a run, and it was deleted.
    pub fn gone(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::GONE, "gone", error)
    }

    /// 409: it does not fit what is there.
    pub fn conflict(code: &'static str, error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, code, error)
    }

    /// 422: of its form, and still not acceptable.
    pub fn unfit(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "unfit", error)
    }

    /// 429: asked too often.
    pub fn too_often(retry_after_s: u64) -> ApiError {
        let error = format!("too many requests with this token; ask again in {retry_after_s} s");
        ApiError {
            retry_after_s: Some(retry_after_s),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_often", error)
        }
    }

    /// 507: the disk is nearly full.
    pub fn full(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "full", error)
    }

    /// 503: not now.
    pub fn not_now(error: impl Into<String>) -> ApiError {
        ApiError {
            retry_after_s: Some(2),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_now", error)
        }
    }

    /// 500: a fault of the orchestrator's own. The cause goes to its log, not to the caller.
    pub fn internal(doing: &str, error: &(dyn std::error::Error + 'static)) -> ApiError {
        tracing::error!(doing, error = causes::chain(error), "request failed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("{doing} failed; the orchestrator's log says why"),
        )
    }

    /// The same, with where the run stands.
    #[must_use]
    pub fn at(mut self, state: State) -> ApiError {
        self.state = Some(Box::new(state));
        self
    }

    /// Its word for programs.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let error = refused.to_string();
        match refused {
            Refused::OldClaim { current, .. } => {
                ApiError { claim: Some(current), ..ApiError::conflict("old_claim", error) }
            }
            Refused::UnknownClaim { current, .. } => {
                ApiError { claim: Some(current), ..ApiError::conflict("unknown_claim", error) }
            }
            Refused::ClaimedElsewhere { current, .. } => {
                ApiError { claim: Some(current), ..ApiError::conflict("claimed_elsewhere", error) }
            }
            // Asked again every five minutes: only an operator can mend it.
            Refused::WrongMachine { .. } => ApiError::new(StatusCode::FORBIDDEN, "wrong_machine", error),
            Refused::NotClaimed { .. } => ApiError::conflict("not_claimed", error),
            Refused::Order { .. } => ApiError::conflict("order", error),
            Refused::TokenSpent { retry_after_ms, .. } => ApiError {
                retry_after_s: retry_after_ms.map(|ms| ms.div_ceil(1_000)),
                ..ApiError::token(error)
            },
            Refused::WrongToken { .. } => ApiError::token(error),
            Refused::Unfit { .. } => ApiError::unfit(error),
        }
    }
}

impl ApiError {
    /// What the answer holds.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: self.error.to_string(),
            code: self.code.to_owned(),
            state: self.state.as_deref().cloned(),
            claim: self.claim,
            retry_after_s: self.retry_after_s,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body();
        let mut response = super::body::json(self.status, &body);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
