//! The words of a heartbeat in the words of the file: one mapping for the agent, which writes it, and the orchestrator,
//! which shows agents whose file it cannot read.

use super::{InfoActivity, InfoPhase};
use crate::stage::Stage;
use crate::wire::Phase;

/// What an agent that says `phase` in its heartbeats, with a stage in flight or none, says in its file.
pub fn heard(phase: &Phase, stage: Option<&Stage>) -> (InfoPhase, Option<InfoActivity>) {
    let working = if stage.is_some() { InfoActivity::Executing } else { InfoActivity::Idle };
    match phase {
        Phase::Starting => (InfoPhase::Starting, Some(working)),
        Phase::Running => (InfoPhase::Running, Some(working)),
        Phase::Holding => (InfoPhase::Running, Some(InfoActivity::WaitingForInput)),
        // Nothing new starts; what was in flight may still end.
        Phase::Draining => {
            (InfoPhase::Running, Some(if stage.is_some() { working } else { InfoActivity::Blocked }))
        }
        Phase::Stopping => (InfoPhase::Stopping, stage.map(|_| InfoActivity::Executing)),
        Phase::Ended => (InfoPhase::Running, Some(InfoActivity::Completed)),
        Phase::Idle => (InfoPhase::Running, Some(InfoActivity::Blocked)),
        Phase::Unknown(_) => (InfoPhase::Running, Some(working)),
    }
}
