//! What operators decide about a run.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::operator::{Order, RunView};
use groundcrew_protocol::wire::ErrorBody;

use super::app::App;
use super::auth::{Operator, parse_run};
use super::body::{Json, ok};
use super::error::ApiError;
use super::runs::full_view;
use crate::run::decide::{Input, OrderKind};

async fn give(
    app: Arc<App>,
    operator: Operator,
    run: &str,
    kind: OrderKind,
    order: Order,
) -> Result<Response, ApiError> {
    let run = parse_run(run)?;
    let live = app.live_run(&run).await?;
    let Order { stage, reason, wipe } = order;
    let kind = match (kind, wipe) {
        (OrderKind::Retry, true) => OrderKind::RetryWithWipe,
        (kind, false) => kind,
        (_, true) => {
            return Err(ApiError::bad("found wipe: true, expected it with a retry alone"));
        }
    };
    let input = Input::Order { order: kind, stage, reason, by: operator.name.to_string() };
    super::agent::advance(&app, &live, input).await?;
    Ok(ok(&full_view(&app, &run).await?))
}

macro_rules! order_route {
    ($(#[doc = $doc:literal])* $name:ident, $path:literal, $kind:expr) => {
        $(#[doc = $doc])*
        #[utoipa::path(post, path = $path, tag = "runs", security(("operator" = [])),
            params(("run" = String, Path, description = "Id of the run")), request_body = Order,
            responses((status = 200, description = "The run afterwards", body = RunView),
                (status = "4XX", body = ErrorBody)))]
        pub async fn $name(
            State(app): State<Arc<App>>,
            operator: Operator,
            Path(run): Path<String>,
            Json(order, _held): Json<Order>,
        ) -> Result<Response, ApiError> {
            give(app, operator, &run, $kind, order).await
        }
    };
}

order_route!(
    /// Does a stage of a held run again.
    retry, "/api/v1/runs/{run}/retry", OrderKind::Retry
);
order_route!(
    /// Lets the verdict of a held run be, with a reason, and goes on.
    override_verdict, "/api/v1/runs/{run}/override", OrderKind::Override
);
order_route!(
    /// Ends a run.
    cancel, "/api/v1/runs/{run}/cancel", OrderKind::Cancel
);
order_route!(
    /// Ends the hold of a run, and with it the run.
    release, "/api/v1/runs/{run}/release", OrderKind::Release
);
order_route!(
    /// Ends a run and its agent.
    abort, "/api/v1/runs/{run}/abort", OrderKind::Abort
);
