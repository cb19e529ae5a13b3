//! Asks for a drain, and takes it off.

use std::path::Path;
use std::time::{Duration, Instant};

use groundcrew_durable::drain_marker::Principal;
use groundcrew_durable::drain_marker::write::{self, Cancelled, Whom};

use super::agent::{self, Rules};
use super::{Asked, Ended, say};

/// How long an agent that answers may go without being able to read its marker.
const CONFIRM: Duration = Duration::from_secs(20);

/// Writes the marker, and waits for the agent's word.
pub(super) fn begin(asked: &Asked) -> anyhow::Result<Ended> {
    let principal = asked.principal.clone().unwrap_or_default();
    write::begin(&asked.home, &principal, asked.quiet, &Rules::of(asked).now())?;
    let ended = confirmed(&asked.home, &principal);
    if let Ended::Done = ended {
        say(format_args!("the agent drains, asked for by {principal}: nothing new starts"))?;
    }
    Ok(ended)
}

/// Whether the agent drains for `principal`: each of its answers follows a look at the marker.
pub(super) fn confirmed(home: &Path, principal: &Principal) -> Ended {
    let began = Instant::now();
    loop {
        let status = match agent::status(home) {
            Ok(status) => status,
            Err(why) => {
                return Ended::NotDraining(format!(
                    "{why}. The marker stands: an agent that starts in this boot, under the process 1 for which it is stamped, drains \
                     by it"
                ));
            }
        };
        let drain = &status.drain;
        if drain.draining && drain.is_fresh && drain.holders.iter().any(|holder| holder == principal.as_str())
        {
            return Ended::Done;
        }
        if drain.is_fresh {
            return Ended::NotDraining(format!("the agent does not drain for {principal}: {}", drain.why));
        }
        if began.elapsed() > CONFIRM {
            return Ended::NotDraining(
                "the agent cannot read the marker: its disk does not answer".to_owned(),
            );
        }
    }
}

/// Takes off one principal's drain, or everybody's.
pub(super) fn cancel(asked: &Asked) -> anyhow::Result<Ended> {
    let whom = asked.principal.as_ref().map_or(Whom::All, Whom::One);
    let names = |names: Vec<Principal>| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match write::cancel(&asked.home, whom, &Rules::of(asked).now())? {
        Cancelled::NothingThere => say("there was no drain")?,
        Cancelled::Gone => say("the drain is off")?,
        Cancelled::StillHeld(others) => say(format_args!("it still holds, asked for by {}", names(others)))?,
        Cancelled::NotAHolder(others) => {
            say(format_args!("nothing was changed: the drain was asked for by {}", names(others)))?;
        }
    }
    Ok(Ended::Done)
}
