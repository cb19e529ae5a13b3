//! What all calls of agents share: fencing, bounds of texts, and refusals that say where the run stands.

use std::sync::Arc;

use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::wire;

use super::app::App;
use super::error::ApiError;
use crate::live::LiveRun;
use crate::run::advance::{AdvanceError, Landed};
use crate::run::decide::{Input, Refused};
use crate::store::Taken;

/// Decides an input of an agent's. A refusal says where the run stands.
pub async fn advance(app: &Arc<App>, live: &LiveRun, input: Input) -> Result<Landed, ApiError> {
    match app.advance(&live.id, input).await {
        Ok(landed) => Ok(landed),
        Err(AdvanceError::NoRun(run)) => {
            // Deleted a moment ago: what is known of it here is past.
            app.live.forget(&run);
            Err(app
                .run(&run)
                .await
                .err()
                .unwrap_or_else(|| ApiError::not_now("the run came back; ask again")))
        }
        Err(error @ AdvanceError::Refused(_)) => Err(ApiError::from(error).at(live.state().standing.clone())),
        Err(error) => Err(error.into()),
    }
}

/// Refuses a message that is not of the current claim, and notes that a current one was heard.
///
/// For what is stored without a decision: logs, readings, artifacts.
pub fn fence(app: &App, live: &LiveRun, found: ClaimNumber) -> Result<(), ApiError> {
    let state = live.state();
    let run = live.id.clone();
    let Some(claim) = &state.claim else { return Err(Refused::NotClaimed { run }.into()) };
    let current = claim.number;
    if state.is_of_current_claim(found) {
        drop(state);
        app.live.hear(live);
        return Ok(());
    }
    let refused = if found > current {
        Refused::UnknownClaim { run, found, current }
    } else {
        Refused::OldClaim { run, found, current }
    };
    Err(ApiError::from(refused).at(state.standing.clone()))
}

/// 507 while the disk is nearly full.
pub fn expect_room(app: &App, what: &str) -> Result<(), ApiError> {
    if app.store.disk_state().is_full() {
        return Err(ApiError::full(format!(
            "the orchestrator's disk is nearly full: {what} are not taken until there is room. Keep them and send them again"
        )));
    }
    Ok(())
}

/// How something was taken; other content under the same name is a 409.
pub fn taken(taken: Taken, what: &str) -> Result<wire::StreamAnswer, ApiError> {
    match taken {
        Taken::First => Ok(wire::StreamAnswer { taken: wire::Taken::First }),
        Taken::Repeated => Ok(wire::StreamAnswer { taken: wire::Taken::Repeated }),
        Taken::OtherContent => Err(ApiError::conflict(
            "other_content",
            format!(
                "{what} was stored before with other content; nothing was changed. Begin a new stream or name"
            ),
        )),
    }
}

/// 422 where a list is longer than it may be.
pub fn expect_count(field: &str, found: usize, max: usize) -> Result<(), ApiError> {
    if found > max {
        return Err(ApiError::unfit(format!("field {field}: found {found} entries, expected at most {max}")));
    }
    Ok(())
}

/// 422 where a text is longer than it may be.
pub fn expect_text(field: &str, found: &str, bytes_max: usize) -> Result<(), ApiError> {
    if found.len() > bytes_max {
        let found = found.len();
        return Err(ApiError::unfit(format!(
            "field {field}: found {found} bytes, expected at most {bytes_max}"
        )));
    }
    Ok(())
}
