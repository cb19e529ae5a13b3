//! Each second: moves the clock of listening, and asks for a decision on every run for which time may have decided
//! something. It decides nothing itself. A run that cannot be decided on keeps none of the others waiting.

use std::sync::Arc;
use std::time::Instant;

use super::{PassError, Passed};
use crate::api::app::App;
use crate::causes;
use crate::live::clock::Tick;
use crate::run::advance::AdvanceError;
use crate::run::decide::Input;
use crate::store::StoreError;

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    let now = Instant::now();
    match app.live.clock.tick(now) {
        Tick::InTime => {}
        Tick::Anew { missed_ms } => {
            tracing::warn!(missed_ms, "nobody listened for a while; every allowance of silence begins anew");
        }
    }
    app.store.note_listened(app.live.clock.read_ms(now));
    app.live.tell_offline();
    let due = app.live.due();
    let (mut changed, mut stuck, mut failed) = (0, Vec::new(), None);
    for run in &due {
        match app.advance(run, Input::Deadline).await {
            Ok(landed) if landed.changed => changed += 1,
            // Due by what is known here, and nothing to do by what is stored: it must not stay so.
            Ok(landed) => {
                app.live.update(&landed.run, landed.version);
                stuck.push(run.to_string());
            }
            Err(AdvanceError::NoRun(run)) => app.live.forget(&run),
            Err(error @ AdvanceError::Store(StoreError::Closed)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%run, error = causes::chain(&error), "run not decided on");
                failed.get_or_insert((run.clone(), 0, error)).1 += 1;
            }
        }
    }
    if let Some((run, count, source)) = failed {
        return Err(PassError::Runs { count, run, source });
    }
    let waits = format!("{} runs known, {changed} waits over", app.live.count());
    if stuck.is_empty() {
        return Ok(waits);
    }
    Ok(format!("{waits}; past their time and not changed: {}", stuck.join(", ")))
}
