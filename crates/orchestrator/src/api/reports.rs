//! A run's report, as JSON or as a page that needs nothing else.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use groundcrew_protocol::report::Report;
use groundcrew_protocol::wire::ErrorBody;
use http::header;
use serde::Deserialize;

use super::app::App;
use super::auth::{Operator, parse_run};
use super::body::{Query, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::report::assemble;

/// In which form.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// `json` (the default) or `html`.
    format: Option<String>,
}

/// The report of a run, also while it is under way.
#[utoipa::path(get, path = "/api/v1/runs/{run}/report", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run"), ReportQuery),
    responses((status = 200, body = Report, description = "With `format=html` a page"),
        (status = "4XX", body = ErrorBody)))]
pub async fn report(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
    Query(query): Query<ReportQuery>,
) -> Result<Response, ApiError> {
    let html = match query.format.as_deref() {
        None | Some("json") => false,
        Some("html") => true,
        Some(found) => {
            return Err(ApiError::bad(format!("query format: found {found:?}, expected json or html")));
        }
    };
    let (run, version) = app.run(&parse_run(&run)?).await?;
    let speaks = app.live.speaks(&app.live.update(&run, version));
    let report = assemble(&app.store, &run, speaks, wall_now()).await?;
    if !html {
        return Ok(ok(&report));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, groundcrew_report::render_html(&report)).into_response())
}
