//! Operators' tokens.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::operator::{CreateToken, TokenCreated, TokenView};
use groundcrew_protocol::wire::ErrorBody;
use http::StatusCode;

use super::app::App;
use super::auth::{Operator, make_operator_token};
use super::body::{Json, json, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::store::NewAudit;

/// Longest name of an operator, in characters.
const NAME_CHARS_MAX: usize = 63;
/// Who acts where no operator does: an operator cannot have one of these names.
const RESERVED: [&str; 3] = ["agent", "orchestrator", "deadline"];

/// Operators' tokens, also revoked ones, without themselves.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", security(("operator" = [])),
    responses((status = 200, body = Vec<TokenView>), (status = "4XX", body = ErrorBody)))]
pub async fn tokens(State(app): State<Arc<App>>, _operator: Operator) -> Result<Response, ApiError> {
    let rows = app.store.tokens().await?;
    let views =
        rows.into_iter().map(|row| TokenView { name: row.name, created: row.created, revoked: row.revoked });
    Ok(ok(&views.collect::<Vec<_>>()))
}

/// Makes a token for an operator, which is shown this once.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", security(("operator" = [])),
    request_body = CreateToken,
    responses((status = 201, body = TokenCreated), (status = "4XX", body = ErrorBody)))]
pub async fn add_token(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(request, _held): Json<CreateToken>,
) -> Result<Response, ApiError> {
    expect_name(&request.name).map_err(|error| ApiError::unfit(format!("field name: {error}")))?;
    let (token, row, audit) = make_operator_token(&request.name, &operator.name, wall_now());
    app.store.add_token(row, audit).await?;
    app.operators.reload(&app.store).await?;
    Ok(json(StatusCode::CREATED, &TokenCreated { name: request.name, token }))
}

/// Takes a token back.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "tokens", security(("operator" = [])),
    params(("name" = String, Path, description = "Whose it is")),
    responses((status = 204, description = "It is revoked"), (status = "4XX", body = ErrorBody)))]
pub async fn revoke_token(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let revoked = app.store.revoke_token(&name, revoke_audit(&name, &operator.name)).await?;
    app.operators.reload(&app.store).await?;
    if !revoked {
        return Err(ApiError::none(format!("there is no token of {name:?} that is good")));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The row of the audit trail for a revoked token.
pub fn revoke_audit(name: &str, by: &str) -> NewAudit {
    NewAudit {
        at: wall_now(),
        actor: by.to_owned(),
        action: "revoke_token".to_owned(),
        run: None,
        text: format!("the token of {name}"),
    }
}

/// Refuses a name that is empty, too long, not printable, or that of something that acts by itself.
///
/// # Errors
/// What was found and what was expected.
pub fn expect_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || name.chars().any(char::is_control) || name.trim() != name {
        return Err(format!("found {name:?}, expected 1 to {NAME_CHARS_MAX} printable characters"));
    }
    if RESERVED.contains(&name) {
        return Err(format!("{name:?} is no name for an operator: events call something else so"));
    }
    Ok(())
}
