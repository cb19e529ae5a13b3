//! How the agent stands, for people and programs.

use std::fmt::Write as _;

use serde_json::json;

use super::{Asked, Ended, agent, say};
use crate::drain::status::{DrainStatus, Status};

/// `groundcrew drain status`.
pub(super) fn status(asked: &Asked) -> anyhow::Result<Ended> {
    match agent::status(&asked.home) {
        Ok(status) if asked.json => say(serde_json::to_string_pretty(&status)?)?,
        Ok(status) => say(in_lines(&status))?,
        Err(why) => {
            let drain = agent::marker(asked);
            if asked.json {
                say(format_args!("{:#}", json!({"gateway_state": null, "why": why, "drain": drain})))?;
            } else {
                say(without_agent(&why, &drain))?;
            }
        }
    }
    Ok(Ended::Done)
}

fn in_lines(status: &Status) -> String {
    let mut text = format!("state       {}\n", status.gateway_state);
    text.push_str(&of_drain(&status.drain));
    for work in &status.active_work {
        let pids: Vec<String> = work.pids.iter().map(ToString::to_string).collect();
        let pids = if pids.is_empty() { String::new() } else { format!(", pid {}", pids.join(" ")) };
        let activity = if work.activity.is_empty() { String::new() } else { format!(" ({})", work.activity) };
        let attempt = if work.attempt == 0 { String::new() } else { format!(", attempt {}", work.attempt) };
        let stage = &work.stage;
        add(
            &mut text,
            "active",
            &format!("run {}, {stage}{attempt}{pids}, since {}{activity}", work.run, work.since),
        );
    }
    if status.active_work.is_empty() {
        add(&mut text, "active", "nothing");
    }
    if !status.waits_for.is_empty() {
        add(&mut text, "waits for", &status.waits_for);
    }
    if status.drain.draining {
        let text_of = "neither busy nor drainable while it drains: wait until nothing is active";
        add(&mut text, "busy", text_of);
    } else {
        add(&mut text, "busy", if status.gateway_busy { "yes" } else { "no" });
    }
    text.truncate(text.trim_end().len());
    text
}

fn without_agent(why: &str, drain: &DrainStatus) -> String {
    let mut text = format!("state       unknown: {why}\n");
    text.push_str(&of_drain(drain));
    text.truncate(text.trim_end().len());
    text
}

fn of_drain(drain: &DrainStatus) -> String {
    let mut text = String::new();
    let fresh = if drain.is_fresh { "" } else { " (as last seen: the disk does not answer)" };
    match (drain.draining, &drain.principal) {
        (true, _) => add(&mut text, "draining", &format!("yes, {}{fresh}", drain.why)),
        (false, Some(_)) => {
            add(&mut text, "draining", &format!("a marker {}, which no agent confirms", drain.why))
        }
        (false, None) => add(&mut text, "draining", &format!("no: {}{fresh}", drain.why)),
    }
    if let Some(principal) = &drain.principal {
        let age = drain.age_s.map(|age| format!(", {age} s old")).unwrap_or_default();
        let epoch = drain.epoch.as_deref().unwrap_or("unknown");
        let quiet = if drain.suppress_notification { ", quiet" } else { "" };
        add(&mut text, "marker", &format!("by {principal}{age}, epoch {epoch}{quiet}"));
    }
    if let Some(defect) = &drain.defect {
        add(&mut text, "defect", defect);
    }
    text
}

fn add(text: &mut String, name: &str, value: &str) {
    let plain: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    writeln!(text, "{name:11} {plain}").expect("writing to a String never fails");
}
