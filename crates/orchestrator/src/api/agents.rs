//! Agents: one list over what they say themselves and what their runtimes know.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::agent_info::AgentList;
use groundcrew_protocol::wire::ErrorBody;

use super::app::App;
use super::auth::Operator;
use super::body::ok;
use crate::agents::list::list;

/// All agents that are known of, each by its own word where nothing overrules that, else by what its runtime knows.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", security(("operator" = [])),
    responses((status = 200, body = AgentList), (status = "4XX", body = ErrorBody)))]
pub async fn agents(State(app): State<Arc<App>>, _operator: Operator) -> Response {
    ok(&list(app.agents.rows(), &app.live))
}
