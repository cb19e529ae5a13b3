//! Who may be working on the machine: on an installed system a stage that puts a load on it needs the profile's leave.
//!
//! Asked whenever an attempt is given out, of every stage that is still to come: a run that could not go through holds at its
//! claim, and not hours later. Another claim, from a live image, is asked anew.

use groundcrew_protocol::profile::Leave;
use groundcrew_protocol::wire::HomeKind;

use crate::run::state::{Claim, HeldFor, Run};

/// True where the claim's agent is on an installed system. One of an older version says only what its home is, and one of
/// protocol 1 nothing.
fn is_installed(claim: &Claim) -> bool {
    claim.installed.unwrap_or(match claim.home {
        HomeKind::Durable => true,
        HomeKind::Volatile | HomeKind::Unknown(_) => false,
    })
}

/// Why the run does not go on under its claim: the first of the stages to come that lacks leave.
pub(super) fn lacks_leave(run: &Run) -> Option<HeldFor> {
    let claim = run.claim.as_ref().filter(|claim| is_installed(claim))?;
    // A version that does not say where it runs knows no drain of such a stage either.
    let can_drain = claim.installed.is_some();
    let to_come = &run.stages[run.at..];
    let lacking = to_come.iter().find(|stage| match run.profile.leave(&stage.spec) {
        Leave::NotNeeded | Leave::InService => false,
        Leave::Drained => !can_drain,
        Leave::Missing => true,
    })?;
    Some(HeldFor::InService { stage: lacking.spec.name.clone(), drains: lacking.spec.drain })
}
