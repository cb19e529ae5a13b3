//! What agents and operators call, under `/api/v1/…`: one file a resource, and one table of all routes.
//!
//! Handlers are only callers: they parse, ask [`app::App::advance`] for a decision, and answer. Who may call what
//! stands in the arguments of each handler ([`auth`]) and, for the tests that try every route with every token, in the
//! table below.

pub mod agent;
pub mod agents;
pub mod app;
pub mod audit;
pub mod auth;
pub mod body;
pub mod claim;
pub mod drains;
pub mod error;
pub mod events;
pub mod heartbeat;
pub mod hold;
pub mod hold_key;
pub mod iperf3;
pub mod logs;
pub mod metrics;
pub mod nodes;
pub mod openapi;
pub mod orders;
pub mod packages;
pub mod reports;
pub mod result;
pub mod run_packages;
pub mod runs;
pub mod sensors;
pub mod sessions;
pub mod tasks;
pub mod tokens;
pub mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post, put};
use groundcrew_protocol::wire::PINS_HEADER;
use http::{Method, StatusCode, Uri};

use app::App;
use error::ApiError;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Open,
    /// Boot token or run token of the run in the path.
    Boot,
    /// Run token of the run in the path.
    Agent,
    /// An operator's token.
    Operator,
}

/// A route.
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    handler: MethodRouter<Arc<App>>,
}

impl Route {
    /// A route for one method.
    pub fn new(method: Method, path: &'static str, access: Access, handler: MethodRouter<Arc<App>>) -> Route {
        Route { method, path, access, handler }
    }
}

/// Every route of the API.
pub fn routes() -> Vec<Route> {
    let mut routes = agent_routes();
    routes.extend(run_routes());
    routes.extend(operator_routes());
    routes
}

fn agent_routes() -> Vec<Route> {
    use Access::{Agent, Boot};
    vec![
        Route::new(Method::POST, "/api/v1/runs/{run}/hello", Boot, post(claim::hello)),
        Route::new(Method::POST, "/api/v1/runs/{run}/claim", Boot, post(claim::claim)),
        Route::new(Method::POST, "/api/v1/runs/{run}/heartbeat", Agent, post(heartbeat::heartbeat)),
        Route::new(Method::POST, "/api/v1/runs/{run}/intent", Agent, post(result::intent)),
        Route::new(Method::POST, "/api/v1/runs/{run}/result", Agent, post(result::result)),
        Route::new(Method::POST, "/api/v1/runs/{run}/hold", Agent, post(hold::hold)),
        Route::new(Method::POST, "/api/v1/runs/{run}/log", Agent, post(logs::log)),
        Route::new(Method::POST, "/api/v1/runs/{run}/sensor", Agent, post(sensors::sensor)),
        Route::new(Method::PUT, "/api/v1/runs/{run}/artifact", Agent, put(sensors::put_artifact)),
        Route::new(
            Method::GET,
            "/api/v1/runs/{run}/package/{name}/{version}",
            Agent,
            get(run_packages::fetch_package),
        ),
    ]
}

fn run_routes() -> Vec<Route> {
    use Access::Operator;
    vec![
        Route::new(Method::GET, "/api/v1/runs", Operator, get(runs::runs)),
        Route::new(Method::POST, "/api/v1/runs", Operator, post(runs::create_run)),
        Route::new(Method::GET, "/api/v1/runs/{run}", Operator, get(runs::get_run)),
        Route::new(Method::DELETE, "/api/v1/runs/{run}", Operator, delete(runs::delete_run)),
        Route::new(Method::POST, "/api/v1/runs/{run}/token", Operator, post(runs::reissue_token)),
        Route::new(Method::GET, "/api/v1/runs/{run}/events", Operator, get(events::events)),
        Route::new(Method::GET, "/api/v1/runs/{run}/logs", Operator, get(logs::logs)),
        Route::new(Method::GET, "/api/v1/runs/{run}/report", Operator, get(reports::report)),
        Route::new(Method::GET, "/api/v1/runs/{run}/artifacts", Operator, get(sensors::artifacts)),
        Route::new(Method::GET, "/api/v1/runs/{run}/artifact", Operator, get(sensors::get_artifact)),
        Route::new(Method::POST, "/api/v1/runs/{run}/retry", Operator, post(orders::retry)),
        Route::new(Method::POST, "/api/v1/runs/{run}/override", Operator, post(orders::override_verdict)),
        Route::new(Method::POST, "/api/v1/runs/{run}/cancel", Operator, post(orders::cancel)),
        Route::new(Method::POST, "/api/v1/runs/{run}/release", Operator, post(orders::release)),
        Route::new(Method::POST, "/api/v1/runs/{run}/abort", Operator, post(orders::abort)),
        Route::new(Method::POST, "/api/v1/runs/{run}/hold-key", Operator, post(hold::hand_out)),
    ]
}

fn operator_routes() -> Vec<Route> {
    use Access::{Open, Operator};
    vec![
        Route::new(Method::GET, "/api/v1/nodes", Operator, get(nodes::nodes)),
        Route::new(Method::GET, "/api/v1/nodes/{name}", Operator, get(nodes::get_node)),
        Route::new(Method::PUT, "/api/v1/nodes/{name}", Operator, put(nodes::put_node)),
        Route::new(Method::DELETE, "/api/v1/nodes/{name}", Operator, delete(nodes::delete_node)),
        Route::new(Method::GET, "/api/v1/agents", Operator, get(agents::agents)),
        Route::new(Method::GET, "/api/v1/drains", Operator, get(drains::drains)),
        Route::new(Method::POST, "/api/v1/drains", Operator, post(drains::add_drain)),
        Route::new(Method::POST, "/api/v1/drains/end", Operator, post(drains::end_drains)),
        Route::new(Method::GET, "/api/v1/profiles", Operator, get(nodes::profiles)),
        Route::new(Method::GET, "/api/v1/profiles/{name}", Operator, get(nodes::get_profile)),
        Route::new(Method::PUT, "/api/v1/profiles/{name}", Operator, put(nodes::put_profile)),
        Route::new(Method::DELETE, "/api/v1/profiles/{name}", Operator, delete(nodes::delete_profile)),
        Route::new(Method::GET, "/api/v1/packages", Operator, get(packages::packages)),
        Route::new(Method::GET, "/api/v1/packages/{name}/{version}", Operator, get(packages::get_package)),
        Route::new(Method::PUT, "/api/v1/packages/{name}/{version}", Operator, put(packages::put_package)),
        Route::new(
            Method::DELETE,
            "/api/v1/packages/{name}/{version}",
            Operator,
            delete(packages::delete_package),
        ),
        Route::new(Method::GET, "/api/v1/tokens", Operator, get(tokens::tokens)),
        Route::new(Method::POST, "/api/v1/tokens", Operator, post(tokens::add_token)),
        Route::new(Method::DELETE, "/api/v1/tokens/{name}", Operator, delete(tokens::revoke_token)),
        Route::new(Method::GET, "/api/v1/hold-key", Operator, get(hold_key::get_hold_key)),
        Route::new(Method::PUT, "/api/v1/hold-key", Operator, put(hold_key::put_hold_key)),
        Route::new(Method::GET, "/api/v1/hold-keys", Operator, get(hold_key::list_hold_keys)),
        Route::new(Method::PUT, "/api/v1/hold-keys/{name}", Operator, put(hold_key::register_hold_key)),
        Route::new(Method::DELETE, "/api/v1/hold-keys/{name}", Operator, delete(hold_key::delete_hold_key)),
        Route::new(Method::GET, "/api/v1/audit", Operator, get(audit::audit)),
        Route::new(Method::GET, "/api/v1/tasks", Operator, get(tasks::tasks)),
        Route::new(Method::GET, "/api/v1/certificate", Operator, get(tasks::certificate)),
        Route::new(Method::GET, "/metrics", Operator, get(metrics::metrics)),
        Route::new(Method::GET, "/healthz", Open, get(metrics::healthz)),
    ]
}

/// Answers these routes, and everything else with an error in the same form.
pub fn router(routes: Vec<Route>, app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes {
        router = router.route(route.path, route.handler);
    }
    let router = router.fallback(no_route).method_not_allowed_fallback(no_method);
    router.layer(map_response_with_state(app.clone(), announce)).with_state(app)
}

/// A rotation of the certificate is announced in every answer, also in a refusal: an agent that waits for a claim hears
/// nothing else.
async fn announce(State(app): State<Arc<App>>, mut answer: Response) -> Response {
    if let Some(pins) = app.live.pins_header() {
        answer.headers_mut().insert(PINS_HEADER, pins);
    }
    answer
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::none(format!("there is nothing at {}; the OpenAPI document lists what is", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let error = format!("{method} does nothing at {}; the OpenAPI document lists what does", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", error)
}
