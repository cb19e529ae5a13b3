//! The agents, in the words of their files and of `groundcrewctl agents`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::agent_info::{AgentView, InfoPhase};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};

use super::list::{REFRESH_S, moment, unhealthy};
use super::{Page, Reader, refused};
use crate::agents::list::list;
use crate::api::app::App;
use crate::api::body::Query;
use crate::api::error::ApiError;

/// Agents of a page: as many as a person looks through.
const AGENTS: usize = 200;

/// Which part of the list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentsQuery {
    /// Those of this phase alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<String>,
    /// So many of them come before.
    skip: usize,
}

/// The agents, in order of namespace and name.
pub async fn page(
    State(app): State<Arc<App>>,
    reader: Reader,
    query: Result<Query<AgentsQuery>, ApiError>,
) -> Response {
    let query = match reader.and(query) {
        Ok(Query(query)) => query,
        Err(error) => return refused(error),
    };
    let agents = list(app.agents.rows(), &app.live);
    let main = render(&agents.agents, agents.left_out, &query, &unhealthy(&app));
    Page { refresh_s: REFRESH_S, ..Page::new("Agents", main) }.render()
}

/// The word of an agent's phase; of one that has said nothing, that.
fn word(agent: &AgentView) -> &str {
    agent.phase.as_ref().map_or("unknown", InfoPhase::as_str)
}

fn render(all: &[AgentView], left_out: u64, query: &AgentsQuery, unhealthy: &[String]) -> Markup {
    let wanted: Vec<&AgentView> =
        all.iter().filter(|agent| query.phase.as_deref().is_none_or(|phase| phase == word(agent))).collect();
    let shown = wanted.iter().skip(query.skip).take(AGENTS);
    let end = query.skip.saturating_add(AGENTS);
    html! {
        h1 { "Agents" }
        @for text in unhealthy { p.bad { "Task " (text) } }
        @if all.is_empty() {
            p { "There is no agent. One is listed once it has claimed a run, or lies in a home that is watched." }
        } @else {
            (phases(all, query.phase.as_deref()))
            table {
                thead { tr { th { "Agent" } th { "Phase" } th { "Activity" } th { "Runtime" } th { "Container" } th { "Last seen" } th { "Run" } th { "Detail" } } }
                tbody { @for agent in shown { (row(agent)) } }
            }
        }
        @if query.skip > 0 { p { a href=(link(query.phase.as_deref(), query.skip.saturating_sub(AGENTS))) { "Those before" } } }
        @if wanted.len() > end { p { a href=(link(query.phase.as_deref(), end)) { (wanted.len() - end) " more" } } }
        @if left_out > 0 { p.bad { "There are " (left_out) " more agents than a list holds." } }
    }
}

/// How many agents there are of each phase, each a way to see them alone.
fn phases(all: &[AgentView], chosen: Option<&str>) -> Markup {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for agent in all {
        *counts.entry(word(agent)).or_default() += 1;
    }
    html! {
        p id="phases" {
            @if chosen.is_some() { a href=(link(None, 0)) { "all " (all.len()) } }
            @else { "all " (all.len()) }
            @for (phase, count) in counts {
                " · "
                @if chosen == Some(phase) { (phase) " " (count) }
                @else { a href=(link(Some(phase), 0)) { (phase) " " (count) } }
            }
        }
    }
}

/// The way to another part. A phase is any text that stands in some agent's file.
fn link(phase: Option<&str>, skip: usize) -> String {
    let query = AgentsQuery { phase: phase.map(str::to_owned), skip };
    let text = serde_urlencoded::to_string(query).expect("a text and a number can stand in a query");
    format!("/agents?{text}")
}

fn row(agent: &AgentView) -> Markup {
    html! {
        tr {
            td {
                @if !agent.namespace.is_empty() { (agent.namespace) "/" } (agent.name)
                @if let Some(node) = agent.node.as_deref().filter(|node| *node != agent.name) { div.dim { "on " (node) } }
            }
            td { span class={ "state " (class(agent.phase.as_ref())) } { (word(agent)) } }
            td { (agent.activity.as_ref().map_or("", |activity| activity.as_str())) }
            td { @if let Some(runtime) = &agent.runtime { (runtime) } }
            td { (agent.container_status) }
            td.dim { @if let Some(seen) = agent.last_seen { (moment(seen)) } }
            td {
                @if let Some(run) = &agent.run { a href={ "/runs/" (run) } { (run) } }
                @if let Some(stage) = &agent.stage { div.dim { (stage) } }
            }
            td {
                (agent.detail)
                @for warning in &agent.warnings { div.bad { (warning) } }
            }
        }
    }
}

fn class(phase: Option<&InfoPhase>) -> &'static str {
    match phase {
        Some(InfoPhase::Running) => "completed",
        Some(InfoPhase::Error) => "held",
        Some(InfoPhase::Stopped | InfoPhase::Ended) => "cancelled",
        Some(
            InfoPhase::Created
            | InfoPhase::Provisioning
            | InfoPhase::Cloning
            | InfoPhase::Starting
            | InfoPhase::Stopping
            | InfoPhase::Unknown(_),
        )
        | None => "walking",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(count: usize, phase: &str) -> Vec<AgentView> {
        let agent = |number| {
            let said = serde_json::json!({"namespace": "lab", "name": format!("n{number:04}"), "phase": phase,
                "runtime": "kubernetes", "container_status": "Failed (OOMKilled)", "node": "rack-1",
                "detail": "OOMKilled: <b>it took too much</b>", "warnings": ["its file is not kept"], "run": "r-1"});
            serde_json::from_value(said).unwrap()
        };
        (0..count).map(agent).collect()
    }

    fn shown(agents: &[AgentView], phase: Option<&str>, skip: usize) -> String {
        let query = AgentsQuery { phase: phase.map(str::to_owned), skip };
        render(agents, 0, &query, &["kubernetes: refused".to_owned()]).into_string()
    }

    #[test]
    fn an_agent_shows_in_the_words_of_its_file_and_no_text_of_it_is_markup() {
        let text = shown(&agents(1, "error"), None, 0);
        for wanted in [
            "lab/n0000",
            "<span class=\"state held\">error</span>",
            "kubernetes",
            "Failed (OOMKilled)",
            "on rack-1",
            "<a href=\"/runs/r-1\">r-1</a>",
            "OOMKilled: &lt;b&gt;it took too much&lt;/b&gt;",
            "<div class=\"bad\">its file is not kept</div>",
            "Task kubernetes: refused",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
        assert!(shown(&[], None, 0).contains("There is no agent."));
    }

    #[test]
    fn many_agents_come_in_parts_and_can_be_seen_by_their_phase() {
        let odd = "a \"new\" & word";
        let all = [agents(AGENTS + 1, "running"), agents(3, odd)].concat();
        let rows = |text: &str| text.matches("<tr>").count() - 1;
        let first = shown(&all, None, 0);
        assert_eq!(rows(&first), AGENTS);
        assert!(first.contains("href=\"/agents?skip=200\">4 more</a>"), "{first}");
        assert!(first.contains("all 204") && first.contains(">running 201</a>"));
        let last = shown(&all, None, AGENTS);
        assert!(rows(&last) == 4 && last.contains("href=\"/agents?skip=0\">Those before</a>"));
        assert_eq!(rows(&shown(&all, None, usize::MAX)), 0);
        assert_eq!(rows(&shown(&all, Some(odd), 0)), 3);
        // The way to them leads to them, whatever their word is.
        let way = link(Some(odd), 0);
        assert!(first.contains(&format!("href=\"{}\"", way.replace('&', "&amp;"))), "{first}");
        let uri: http::Uri = way.parse().unwrap();
        let axum::extract::Query(query) = axum::extract::Query::<AgentsQuery>::try_from_uri(&uri).unwrap();
        assert_eq!((query.phase.as_deref(), query.skip), (Some(odd), 0));
    }
}
