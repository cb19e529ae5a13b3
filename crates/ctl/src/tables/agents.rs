//! Agents: what each does, or how it ended.

use comfy_table::{Cell, Color};
use groundcrew_protocol::agent_info::{AgentList, AgentView, InfoPhase};
use groundcrew_protocol::time::WallMs;

use super::{finished, table};
use crate::output::Reader;
use crate::words::{age, clean, wrapped};

/// Agents.
pub(crate) fn agents(list: &AgentList, reader: &Reader, now: WallMs) -> String {
    if list.agents.is_empty() {
        return "No agents. One is listed once it has claimed a run, or lies in a home that is watched.\n"
            .to_owned();
    }
    let mut table =
        table(reader, &["AGENT", "PHASE", "ACTIVITY", "RUNTIME", "CONTAINER", "SEEN", "RUN", "DETAIL"]);
    for agent in &list.agents {
        let runtime = agent.runtime.as_ref().map_or_else(String::new, |runtime| clean(&runtime.to_string()));
        table.add_row([
            Cell::new(name(agent)),
            phase(agent.phase.as_ref()),
            Cell::new(agent.activity.as_ref().map_or_else(String::new, |activity| clean(activity.as_str()))),
            Cell::new(runtime),
            Cell::new(clean(&agent.container_status)),
            Cell::new(agent.last_seen.map_or_else(|| "-".to_owned(), |seen| age(seen, now))),
            Cell::new(agent.run.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
            Cell::new(clean(&agent.detail)),
        ]);
    }
    let mut text = finished(table, reader);
    for agent in &list.agents {
        for warning in &agent.warnings {
            text.push_str(&wrapped(&format!("! {}: {}", name(agent), clean(warning)), reader.width));
        }
    }
    if list.left_out > 0 {
        text.push_str(&format!("There are {} more.\n", list.left_out));
    }
    text
}

fn name(agent: &AgentView) -> String {
    match agent.namespace.as_str() {
        "" => clean(&agent.name),
        namespace => clean(&format!("{namespace}/{}", agent.name)),
    }
}

fn phase(phase: Option<&InfoPhase>) -> Cell {
    let Some(phase) = phase else { return Cell::new("-") };
    let cell = Cell::new(clean(phase.as_str()));
    match phase {
        InfoPhase::Running => cell.fg(Color::Green),
        InfoPhase::Error => cell.fg(Color::Red),
        InfoPhase::Stopped | InfoPhase::Ended => cell.fg(Color::DarkGrey),
        InfoPhase::Created
        | InfoPhase::Provisioning
        | InfoPhase::Cloning
        | InfoPhase::Starting
        | InfoPhase::Stopping
        | InfoPhase::Unknown(_) => cell.fg(Color::Cyan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_says_what_it_does_and_how_it_ended_and_what_is_wrong() {
        let list: AgentList = serde_json::from_str(
            r#"{"agents": [
                {"name": "n1", "runtime": "local", "phase": "running", "activity": "executing", "run": "r-1",
                    "container_status": "Running", "last_seen": 1000, "detail": "40 %"},
                {"namespace": "lab", "name": "n2", "runtime": "kubernetes", "phase": "error",
                    "container_status": "Failed (OOMKilled)", "detail": "OOMKilled\u001b[31m",
                    "warnings": ["its file is not kept: reading \u001b]0;x"]}], "left_out": 2}"#,
        )
        .unwrap();
        let reader = Reader { width: 140, height: 24, colour: false, is_terminal: false };
        let text = agents(&list, &reader, WallMs(4_000));
        for wanted in [
            "n1      running  executing  local       Running             3 s   r-1  40 %",
            "lab/n2  error               kubernetes  Failed (OOMKilled)  -     -    OOMKilled [31m",
            "! lab/n2: its file is not kept: reading",
            "There are 2 more.",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let narrow = agents(&list, &Reader { width: 60, ..reader }, WallMs(4_000));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    }
}
