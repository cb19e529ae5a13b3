//! The audit trail: who did what.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::operator::{AuditList, AuditView};
use groundcrew_protocol::wire::ErrorBody;
use serde::Deserialize;

use super::app::App;
use super::auth::Operator;
use super::body::{Query, ok};
use super::error::ApiError;
use super::nodes::page_limit;

/// Which part of the trail.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only rows before this number: `next` of the page before.
    after: Option<u64>,
    /// At most so many, 1 to 500.
    limit: Option<u32>,
}

/// Who did what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "orchestrator", security(("operator" = [])), params(AuditQuery),
    responses((status = 200, body = AuditList), (status = "4XX", body = ErrorBody)))]
pub async fn audit(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    let limit = page_limit(query.limit)?;
    let rows = app.store.audit_rows(query.after.unwrap_or(u64::MAX), limit).await?;
    let is_full = rows.len() == limit as usize;
    let next = rows.last().map(|row| row.id).filter(|_| is_full);
    let view = |row: crate::store::AuditRow| AuditView {
        id: row.id,
        at: row.audit.at,
        actor: row.audit.actor,
        action: row.audit.action,
        run: row.audit.run,
        text: row.audit.text,
    };
    Ok(ok(&AuditList { rows: rows.into_iter().map(view).collect(), next }))
}
