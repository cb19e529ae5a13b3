//! Why a run stands where it stands, in plain sentences, and what an operator can do about it. Pure.

use groundcrew_protocol::operator::{RunSummary, RunView, StageView, WaitView};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;

use crate::words::{ago, ahead, clean, moment, sentence, span, wrapped};

/// What an agent that was not heard for three heartbeats is called.
const OFFLINE: &str = "offline";

/// The answer: sentences, then the commands that change something, each on a line of its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Why {
    /// The most important first.
    pub(crate) sentences: Vec<String>,
    /// Arguments of `groundcrewctl`, and what they do.
    pub(crate) commands: Vec<(String, &'static str)>,
}

/// The answer as text, in lines of at most `width` characters.
pub(crate) fn text(view: &RunView, now: WallMs, width: usize) -> String {
    let why = of(view, now);
    sentences(&why, width) + &commands(&why)
}

/// The sentences alone.
pub(crate) fn sentences(why: &Why, width: usize) -> String {
    why.sentences.iter().map(|sentence| wrapped(sentence, width)).collect()
}

/// What can be done, as lines of text.
pub(crate) fn commands(why: &Why) -> String {
    let width = why.commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
    let lines =
        why.commands.iter().map(|(command, does)| format!("  groundcrewctl {command:width$}  {does}\n"));
    lines.collect()
}

/// Why the run stands where it stands.
pub(crate) fn of(view: &RunView, now: WallMs) -> Why {
    let summary = &view.summary;
    let mut why = Why::default();
    match &summary.state {
        State::Completed => why.sentences.push(completed(summary, now)),
        State::Cancelled => why.sentences.push(cancelled(summary, now)),
        State::FailedHolding => held(view, now, &mut why),
        State::At(stage) => walking(view, stage, now, &mut why),
    }
    why.sentences.extend(view.stages.iter().filter_map(overridden));
    if let Some(wait) = &summary.wait {
        why.sentences.push(waiting(wait, now));
    }
    why.sentences.extend(stays(view, now));
    if !view.directives.is_empty() {
        let directives = clean(&view.directives.join(", "));
        why.sentences
            .push(format!("The agent was told to {directives} and has not said yet what became of it."));
    }
    if let Some(unproved) = &view.machine_unproved {
        why.sentences.push(format!(
            "It is not proved that this machine is {}. {}",
            summary.node,
            sentence(unproved)
        ));
    }
    if let Some(skew_ms) = view.skew_ms {
        let skew = span(skew_ms.saturating_abs());
        why.sentences.push(format!("The agent's clock is {skew} off: its stamps mislead, deadlines do not."));
    }
    if !view.gaps.is_empty() {
        let count = view.gaps.len();
        let gaps = if count == 1 { "is 1 gap".to_owned() } else { format!("are {count} gaps") };
        why.sentences.push(format!("There {gaps} in the log: {}.", clean(&view.gaps.join("; "))));
    }
    why
}

fn completed(summary: &RunSummary, now: WallMs) -> String {
    let when = summary.ended.map_or_else(String::new, |at| format!(" {}", ago(at, now)));
    match summary.verdict {
        Some(verdict) => format!("The run is Completed with the verdict {verdict}; it ended{when}."),
        None => format!("The run is Completed; it ended{when}."),
    }
}

fn cancelled(summary: &RunSummary, now: WallMs) -> String {
    let when = summary.ended.map_or_else(String::new, |at| format!(" {}", ago(at, now)));
    format!("The run was cancelled{when}. {}", sentence(or(&summary.reason, "no reason was given")))
}

/// What an operator let be.
fn overridden(stage: &StageView) -> Option<String> {
    let reason = stage.overridden.as_deref()?;
    let verdict = stage.verdict.map_or_else(String::new, |verdict| format!(", which came out {verdict},"));
    let name = clean(&stage.stage.to_string());
    Some(format!("{name}{verdict} was overridden: {}", sentence(reason)))
}

/// The agent of an ended run that nobody has told to shut its machine down.
fn stays(view: &RunView, now: WallMs) -> Option<String> {
    // Those words are said of an agent that is away, the last two where its pod or process was seen to end.
    let agent =
        view.summary.agent.as_deref().filter(|agent| ![OFFLINE, "stopped", "error"].contains(agent))?;
    let at = if view.ip.is_empty() { String::new() } else { format!(" at {}", clean(&view.ip)) };
    (view.summary.state.is_ended() && view.directives.is_empty()).then(|| {
        format!(
            "Its agent{at} is still there ({}, {}): it idles until somebody stops it (`systemctl stop groundcrew`) or \
             switches the machine off.",
            clean(agent),
            last_heard(view, now)
        )
    })
}

fn held(view: &RunView, now: WallMs, why: &mut Why) {
    let summary = &view.summary;
    let stage =
        summary.stage.as_ref().map_or_else(String::new, |stage| format!(" at {}", clean(&stage.to_string())));
    let reason = sentence(or(&summary.reason, "no reason was given"));
    why.sentences.push(format!("The run is held{stage}. {reason}"));
    match summary.agent.as_deref() {
        None => why.sentences.push("No agent has ever claimed it.".to_owned()),
        Some(OFFLINE) => why.sentences.push(format!(
            "Its agent is offline, {}; a hold for silence ends by itself when the agent speaks again.",
            last_heard(view, now)
        )),
        Some(_) => {}
    }
    if let Some(failed) = &view.hold_key_failed {
        why.sentences.push(format!("No SSH key could be made for this hold: {}", sentence(failed)));
    }
    let run = &summary.run;
    why.commands.extend([
        (format!("run report {run}"), "shows every check"),
        (format!("run ssh {run}"), "logs in to the machine"),
        (format!("run retry {run}"), "does the stage again"),
        (format!("run override {run} --reason …"), "accepts the verdict"),
        (format!("run release {run}"), "ends the hold and the run"),
        (format!("run cancel {run} --reason …"), "ends the run as well, and says why"),
    ]);
}

fn walking(view: &RunView, stage: &Stage, now: WallMs, why: &mut Why) {
    let summary = &view.summary;
    let run = &summary.run;
    let name = clean(&stage.to_string());
    let Some(agent) = summary.agent.as_deref() else {
        if let Some(refused) = &view.wrong_machine {
            why.sentences.push(format!("An agent asked for the run and was refused. {}", sentence(refused)));
            why.commands.push((format!("node show {}", summary.node), "shows what the node is known by"));
            return;
        }
        why.sentences.push(format!(
            "No agent has claimed the run yet: the machine has not booted with its token, or cannot reach the \
             orchestrator. It begins with {name}."
        ));
        why.commands.push((format!("run token {run}"), "makes a new boot token, in place of the old one"));
        return;
    };
    if let Stage::Unknown(_) = stage {
        why.sentences.push(format!("The run stands at {name}, which this version does not know."));
    } else if stage.is_orchestrators() {
        why.sentences.push(format!("The orchestrator itself is at {name}; no agent is needed for that."));
    } else if let Some(rebooting) = &summary.rebooting {
        why.sentences.push(format!(
            "The machine reboots for {}, attempt {}: that was asked for {} under boot id {}, and a claim under another proves it.",
            clean(&rebooting.stage.to_string()),
            rebooting.attempt,
            ago(rebooting.asked, now),
            rebooting.boot_id
        ));
    } else if agent == OFFLINE {
        why.sentences.push(format!(
            "The run is at {name}, attempt {}, and its agent is offline: {}.",
            summary.attempt,
            last_heard(view, now)
        ));
    } else {
        let busy =
            if view.activity.is_empty() { String::new() } else { format!(", {}", clean(&view.activity)) };
        why.sentences.push(format!(
            "The run is at {name}, attempt {}{}. Its agent is {}{busy}, {}.",
            summary.attempt,
            so_far(view, stage, now),
            clean(agent),
            last_heard(view, now)
        ));
    }
    why.commands.push((format!("run watch {run}"), "follows it"));
}

/// How long the stage has been going, of how long it may.
fn so_far(view: &RunView, stage: &Stage, now: WallMs) -> String {
    let current = view.stages.iter().find(|one| &one.stage == stage);
    let Some((current, began)) = current.and_then(|one| one.began.map(|began| (one, began))) else {
        return String::new();
    };
    let passed = span(now.0.saturating_sub(began.0));
    format!(", for {passed} of {}", span(i64::try_from(current.deadline_ms).unwrap_or(i64::MAX)))
}

fn last_heard(view: &RunView, now: WallMs) -> String {
    match view.last_heard {
        Some(heard) => format!("last heard {}", ago(heard, now)),
        None => "not heard since the orchestrator started".to_owned(),
    }
}

/// Rule 5 of the design: for what, since when, until when, and what then.
fn waiting(wait: &WaitView, now: WallMs) -> String {
    let what = clean(&wait.r#for);
    let since = ago(wait.since, now);
    let until = format!("{} ({})", moment(wait.until, now), ahead(wait.until, now));
    let then = clean(&wait.then);
    let since = if since == "just now" { since } else { format!("since {}", since.trim_end_matches(" ago")) };
    if wait.until.0 < now.0 {
        return format!(
            "It waits for {what}, {since}. That was due by {until}: {then}, as soon as the orchestrator has \
             listened for that long."
        );
    }
    format!("It waits for {what}, {since}. If that has not come by {until}: {then}.")
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
