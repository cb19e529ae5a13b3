//! An agent shuts down in order: that is an event of its run, and a notice for those whom settings name. A crash says
//! nothing of itself, and is none.
//!
//! The first word of a claim counts; one that did not arrive comes with the next claim of that home, and is told then. The notice stays in the run's document until every sink of it was told or given up,
//! so that a restart in between loses none.

use groundcrew_protocol::ids::SinkName;
use groundcrew_protocol::wire::{Shutdown, Unheard};

use super::heard;
use super::step::{AGENT, ORCHESTRATOR, Step};
use crate::run::notice::{Audience, Heard, NOTICES_MAX, Notice, Why, event_text, resume, resumed, whom};

/// The current claim's agent shuts down.
pub(super) fn shuts_down(step: &mut Step, said: &Shutdown, fleet: &[SinkName]) {
    heard::end_silence(step);
    let at = step.now.wall;
    let Some(claim) = step.run.claim.as_mut().filter(|claim| claim.shuts_down.is_none()) else {
        return;
    };
    claim.shuts_down = Some(at);
    step.run.shutdown_told = claim.session.clone();
    tell(step, said, fleet, Heard::InTime);
}

/// A claim says how an agent of its home had ended before it, since nobody may have heard that. It is told now, unless that
/// very process was heard after all; the run stands as that agent has left it.
pub(super) fn shut_down_unheard(step: &mut Step, unheard: &Unheard, fleet: &[SinkName]) {
    if step.run.shutdown_told.as_ref() == Some(&unheard.session) {
        return;
    }
    step.run.shutdown_told = Some(unheard.session.clone());
    tell(step, &unheard.said, fleet, Heard::Late);
}

fn tell(step: &mut Step, said: &Shutdown, fleet: &[SinkName], heard: Heard) {
    let why = Why::of(&step.run);
    // What it names is believed where it is what the run waits for.
    let open = step.open_attempt();
    let here = &step.run.stage().spec.name;
    let cut_off = said.cut_off.clone().filter(|cut| cut.stage == *here && Some(cut.attempt) == open);
    let resume = match heard {
        Heard::InTime => resume(&step.run, why, cut_off.as_ref()),
        Heard::Late => resumed(&step.run),
    };
    if step.run.ended().is_none() {
        let text = event_text(heard, why, cut_off.as_ref(), said.suppress_notification, &resume);
        step.tell("agent_shutdown", AGENT, text);
    }
    // In a drain that was waited for nothing is active any more.
    let is_active = step.is_on_its_way() && (cut_off.is_some() || !said.drained);
    let to = whom(fleet, &step.run.notify, is_active, said.suppress_notification);
    if to.is_empty() {
        return;
    }
    if step.run.notices.len() >= NOTICES_MAX {
        let oldest = step.run.notices.remove(0);
        for due in oldest.to {
            tell_failed(step, &due.sink, "too many notices of this run wait to be sent");
        }
    }
    step.run.notices_made += 1;
    let (number, at, at_ms) = (step.run.notices_made, step.now.wall, step.now.listened_ms);
    step.run.notices.push(Notice { number, at, at_ms, heard, why, cut_off, resume, to });
}

/// A sink was told, or will not be. What was settled before changes nothing.
pub(super) fn settled(step: &mut Step, number: u64, sink: &SinkName, outcome: &Result<(), String>) {
    let Some(notice) = step.run.notices.iter_mut().find(|notice| notice.number == number) else {
        return;
    };
    let Some(index) = notice.to.iter().position(|due| due.sink == *sink) else {
        return;
    };
    let due = notice.to.remove(index);
    step.run.notices.retain(|notice| !notice.to.is_empty());
    match (outcome, due.audience) {
        (Ok(()), Audience::Run) => {
            step.tell("notice_sent", ORCHESTRATOR, format!("sink {sink} was told of the agent's shutdown"));
        }
        // That others were told is no news of this run.
        (Ok(()), Audience::Fleet) => {}
        (Err(why), Audience::Run | Audience::Fleet) => tell_failed(step, sink, why),
    }
}

fn tell_failed(step: &mut Step, sink: &SinkName, why: &str) {
    let text = format!("sink {sink} was not told of the agent's shutdown: {why}");
    step.tell("notice_failed", ORCHESTRATOR, text);
}
