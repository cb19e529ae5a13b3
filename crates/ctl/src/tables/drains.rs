//! A node: how its drains stand, and the reboot that is awaited of it.

use groundcrew_protocol::drain::{AgentDrain, Drain, DrainList, DrainTarget, NodeDrain};
use groundcrew_protocol::operator::{NodeView, Rebooting};
use groundcrew_protocol::time::WallMs;

use super::{block, finished, node, table};
use crate::output::Reader;
use crate::words::{ago, ahead, clean, moment};

/// A node, and how its drains stand.
pub(crate) fn node_view(view: &NodeView, now: WallMs) -> String {
    let mut text = node(&view.node());
    if let Some(drain) = &view.drain {
        text.push_str(&node_drain(drain, now));
    }
    if let Some(rebooting) = &view.rebooting {
        text.push_str(&block(&[(
            "Rebooting",
            format!("for run {}: {}", rebooting.run, reboot(rebooting, now)),
        )]));
    }
    text
}

/// A reboot that is awaited: who asked, under which boot, since when, until when.
pub(super) fn reboot(rebooting: &Rebooting, now: WallMs) -> String {
    let missed = match rebooting.missed {
        0 => String::new(),
        count => format!("; asked again {count} times, the agent being back under that boot"),
    };
    format!(
        "{}, attempt {}, asked {} under boot id {}, must be seen by {} ({}){missed}",
        clean(&rebooting.stage.to_string()),
        rebooting.attempt,
        ago(rebooting.asked, now),
        rebooting.boot_id,
        moment(rebooting.until, now),
        ahead(rebooting.until, now),
    )
}

fn node_drain(drain: &NodeDrain, now: WallMs) -> String {
    let mut rows = vec![("Drain", clean(drain.state.describe()))];
    rows.extend(drain.drains.iter().map(|drain| ("By", asked(drain, now))));
    for agent in &drain.agents {
        rows.push(("Agent", agent_line(agent)));
    }
    block(&rows)
}

fn asked(drain: &Drain, now: WallMs) -> String {
    let reason = if drain.reason.is_empty() { String::new() } else { format!(": {}", clean(&drain.reason)) };
    let until = match (drain.until, &drain.run) {
        (Some(until), _) => format!(", ends {}", ahead(until, now)),
        (None, Some(run)) => format!(", ends with run {run}"),
        (None, None) => ", until `groundcrewctl node undrain`".to_owned(),
    };
    format!(
        "{} by {}{reason} ({}, since {}{until})",
        drain.id,
        clean(&drain.by),
        drain.target,
        moment(drain.created, now)
    )
}

fn agent_line(agent: &AgentDrain) -> String {
    let mut words = vec![format!("run {}: {}", agent.run, clean(&agent.agent))];
    if !agent.drain.is_empty() {
        words.push(format!("drains: {}", clean(&agent.drain)));
    }
    if !agent.refused.is_empty() {
        words.push(format!("refuses: {}", clean(&agent.refused)));
    }
    words.push(match &agent.active {
        Some(active) => {
            let activity = clean(&active.activity);
            let activity = if activity.is_empty() { activity } else { format!(" ({activity})") };
            format!("active: {}, attempt {}{activity}", clean(&active.stage.to_string()), active.attempt)
        }
        None => "nothing is active".to_owned(),
    });
    words.join("; ")
}

/// A drain that was asked for, and how to follow and end it.
pub(crate) fn drain_asked(drain: &Drain, now: WallMs) -> String {
    let (node, undrain) = match &drain.target {
        DrainTarget::Node(name) => (name.to_string(), name.to_string()),
        DrainTarget::Label { key, value } => {
            ("NODE".to_owned(), format!("--label {}", clean(&format!("{key}={value}"))))
        }
    };
    format!(
        "Drain {}\n  groundcrewctl node show {node}  how it stands\n  groundcrewctl node undrain {undrain}  ends it\n",
        asked(drain, now)
    )
}

/// Drains that were ended.
pub(crate) fn drains_ended(list: &DrainList) -> String {
    list.drains
        .iter()
        .map(|drain| format!("Drain {} of {} is ended.\n", drain.id, clean(&drain.target.to_string())))
        .collect()
}

/// Drains.
pub(crate) fn drains(list: &DrainList, reader: &Reader, now: WallMs) -> String {
    if list.drains.is_empty() {
        return "No drains. Ask for one with `groundcrewctl node drain NODE`.\n".to_owned();
    }
    let mut table = table(reader, &["DRAIN", "OF", "BY", "SINCE", "UNTIL", "WHY"]);
    for drain in &list.drains {
        let until = match (&drain.ended, drain.until, &drain.run) {
            (Some(ended), _, _) => format!("ended: {}", clean(&ended.why)),
            (None, Some(until), _) => ahead(until, now),
            (None, None, Some(run)) => format!("the end of {run}"),
            (None, None, None) => "undrain".to_owned(),
        };
        table.add_row([
            drain.id.to_string(),
            clean(&drain.target.to_string()),
            clean(&drain.by),
            moment(drain.created, now),
            until,
            clean(&drain.reason),
        ]);
    }
    finished(table, reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_node_says_by_whom_until_when_and_what_is_active() {
        let view: NodeView = serde_json::from_str(
            r#"{"name": "n1", "drain": {"state": "draining",
                "drains": [{"id": "d-1", "target": {"label": {"key": "rack", "value": "1"}}, "by": "ann",
                    "reason": "new\u001b[31m PSU", "created": 1000, "until": 61000, "until_ms": 9}],
                "agents": [{"run": "r-1", "agent": "draining", "drain": "by ann", "holds": ["d-1"],
                    "active": {"stage": "CPUStress", "attempt": 2, "activity": "40 %"}}]}}"#,
        )
        .unwrap();
        let text = node_view(&view, WallMs(1_000));
        for wanted in [
            "draining: what is active ends first",
            "d-1 by ann: new [31m PSU (every node with rack=1, since 00:00:01 UTC, ends in 1 min)",
            "run r-1: draining; drains: by ann; active: CPUStress, attempt 2 (40 %)",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_node_that_reboots_says_for_whom_since_when_and_until_when() {
        let view: NodeView = serde_json::from_str(
            r#"{"name": "n1", "rebooting": {"run": "r-1", "stage": "Interrupt:kernel", "attempt": 2,
                "boot_id": "11111111-1111-4111-8111-111111111111", "asked": 1000, "until": 1801000, "missed": 1}}"#,
        )
        .unwrap();
        let text = node_view(&view, WallMs(61_000));
        let wanted = "for run r-1: Interrupt:kernel, attempt 2, asked 1 min ago under boot id \
                      11111111-1111-4111-8111-111111111111, must be seen by 00:30:01 UTC (in 29 min); asked again 1 times";
        assert!(text.contains("Rebooting") && text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }
}
