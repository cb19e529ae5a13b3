//! Nodes and profiles, as operators write them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use groundcrew_protocol::ids::{NodeName, ProfileName};
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::{Node, NodeList, NodeView, ProfileList, Rebooting};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::wire::ErrorBody;
use http::{StatusCode, header};
use serde::Deserialize;

use super::agent::{expect_count, expect_text};
use super::app::App;
use super::auth::Operator;
use super::body::{Json, Query, Raw, ok};
use super::drains;
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::run::state::WaitFor;
use crate::store::NewAudit;

/// Entries of a page that names no number, and the most that a page may have.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 500;
/// MACs and labels of a node, and the length of a label.
const LABELS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Begin after this name.
    after: Option<String>,
    /// At most so many, 1 to 500.
    limit: Option<u32>,
}

impl PageQuery {
    /// After which entry.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// How many entries.
    ///
    /// # Errors
    /// 400 where it is none of those that are allowed.
    pub fn limit(&self) -> Result<u32, ApiError> {
        page_limit(self.limit)
    }
}

/// The number of entries of a page.
pub fn page_limit(asked: Option<u32>) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(ApiError::bad(format!("query limit: found {limit}, expected 1 to {PAGE_MAX}")));
    }
    Ok(limit)
}

/// An id in a query or path.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(place: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::bad(format!("{place}: {error}")))
}

/// A row of the audit trail for what an operator did.
pub fn audit(operator: &Operator, action: &str, text: String) -> NewAudit {
    let actor = operator.name.to_string();
    NewAudit { at: wall_now(), actor, action: action.to_owned(), run: None, text }
}

/// Nodes, in order of their names.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", security(("operator" = [])), params(PageQuery),
    responses((status = 200, body = NodeList), (status = "4XX", body = ErrorBody)))]
pub async fn nodes(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiError> {
    let after = query.after.as_deref().map(|text| parse::<NodeName>("query after", text)).transpose()?;
    let limit = query.limit()?;
    let nodes = app.store.nodes(after.as_ref(), limit).await?;
    let next = (nodes.len() == limit as usize).then(|| nodes.last().map(|node| node.name.clone())).flatten();
    Ok(ok(&NodeList { nodes, next }))
}

/// A node, and how its drains stand.
#[utoipa::path(get, path = "/api/v1/nodes/{name}", tag = "nodes", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = NodeView), (status = "4XX", body = ErrorBody)))]
pub async fn get_node(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name: NodeName = parse("in the path", &name)?;
    let node = app.store.node(&name).await?;
    let node = node.ok_or_else(|| ApiError::none(format!("there is no node {name}")))?;
    let drain = drains::of(&app, &node).await?;
    let rebooting = rebooting(&app, &node).await?;
    let Node { name, serial, macs, labels } = node;
    Ok(ok(&NodeView { name, serial, macs, labels, drain, rebooting }))
}

/// The reboot that a run of the node has asked for: of several the one that is due last.
async fn rebooting(app: &App, node: &Node) -> Result<Option<Rebooting>, ApiError> {
    let mut awaited: Option<Rebooting> = None;
    for live in app.live.all().into_iter().filter(|live| live.node == node.name) {
        let awaits = matches!(live.state().wait, Some((WaitFor::Reboot, _)));
        if !awaits {
            continue;
        }
        // Its document says under which boot it was asked for; what is known for the moment does not.
        let (run, _version) = app.run(&live.id).await?;
        let later =
            run.rebooting().filter(|one| awaited.as_ref().is_none_or(|known| known.until < one.until));
        awaited = later.or(awaited);
    }
    Ok(awaited)
}

/// Makes or replaces a node.
#[utoipa::path(put, path = "/api/v1/nodes/{name}", tag = "nodes", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")), request_body = Node,
    responses((status = 200, body = Node), (status = "4XX", body = ErrorBody)))]
pub async fn put_node(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
    Json(node, _held): Json<Node>,
) -> Result<Response, ApiError> {
    let name: NodeName = parse("in the path", &name)?;
    if node.name != name {
        let found = &node.name;
        return Err(ApiError::unfit(format!("field name: found {found}, expected {name} as in the path")));
    }
    expect_count("macs", node.macs.len(), LABELS_MAX)?;
    expect_count("labels", node.labels.len(), LABELS_MAX)?;
    expect_text("serial", node.serial.as_deref().unwrap_or_default(), TEXT_BYTES_MAX)?;
    for (key, value) in &node.labels {
        expect_text("labels", key, TEXT_BYTES_MAX)?;
        expect_text(&format!("labels.{key}"), value, TEXT_BYTES_MAX)?;
    }
    app.store.put_node(node.clone(), audit(&operator, "put_node", name.to_string())).await?;
    Ok(ok(&node))
}

/// Deletes a node without a run under way. Its runs stay.
#[utoipa::path(delete, path = "/api/v1/nodes/{name}", tag = "nodes", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is deleted"), (status = "4XX", body = ErrorBody)))]
pub async fn delete_node(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name: NodeName = parse("in the path", &name)?;
    match app.store.delete_node(&name, audit(&operator, "delete_node", name.to_string())).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::none(format!("there is no node {name}"))),
    }
}

/// The names of profiles, in order.
#[utoipa::path(get, path = "/api/v1/profiles", tag = "profiles", security(("operator" = [])), params(PageQuery),
    responses((status = 200, body = ProfileList), (status = "4XX", body = ErrorBody)))]
pub async fn profiles(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiError> {
    let after = query.after.as_deref().map(|text| parse::<ProfileName>("query after", text)).transpose()?;
    let limit = query.limit()?;
    let profiles = app.store.profiles(after.as_ref(), limit).await?;
    let next = (profiles.len() == limit as usize).then(|| profiles.last().cloned()).flatten();
    Ok(ok(&ProfileList { profiles, next }))
}

/// A profile, as it was written.
#[utoipa::path(get, path = "/api/v1/profiles/{name}", tag = "profiles", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "Its text", body = String, content_type = "application/toml"),
        (status = "4XX", body = ErrorBody)))]
pub async fn get_profile(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let name: ProfileName = parse("in the path", &name)?;
    let row = app.store.profile(&name).await?;
    let row = row.ok_or_else(|| ApiError::none(format!("there is no profile {name}")))?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], row.text).into_response())
}

/// Makes or replaces a profile. Runs keep the one that they were made with.
#[utoipa::path(put, path = "/api/v1/profiles/{name}", tag = "profiles", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    request_body(content = String, content_type = "application/toml"),
    responses((status = 200, description = "The profile as it was understood", body = Profile),
        (status = "4XX", body = ErrorBody)))]
pub async fn put_profile(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
    Raw(bytes, _held): Raw<{ limits::PROFILE_BYTES_MAX }>,
) -> Result<Response, ApiError> {
    let name: ProfileName = parse("in the path", &name)?;
    let text = String::from_utf8(bytes.into())
        .map_err(|error| ApiError::bad(format!("the profile is no UTF-8 text: {error}")))?;
    let profile = Profile::parse(&text).map_err(|error| ApiError::unfit(error.to_string()))?;
    if profile.name != name {
        let found = &profile.name;
        return Err(ApiError::unfit(format!("key name: found {found}, expected {name} as in the path")));
    }
    app.store.put_profile(text, profile.clone(), audit(&operator, "put_profile", name.to_string())).await?;
    Ok(ok(&profile))
}

/// Deletes a profile. Runs keep the one that they were made with.
#[utoipa::path(delete, path = "/api/v1/profiles/{name}", tag = "profiles", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is deleted"), (status = "4XX", body = ErrorBody)))]
pub async fn delete_profile(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name: ProfileName = parse("in the path", &name)?;
    match app.store.delete_profile(&name, audit(&operator, "delete_profile", name.to_string())).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::none(format!("there is no profile {name}"))),
    }
}
