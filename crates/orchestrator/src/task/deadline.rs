//! Each second: moves the clock of listening, and asks for a decision on every run for which time may have decided
//! something. It decides nothing itself.

use std::sync::Arc;
use std::time::Instant;

use super::Passed;
use crate::api::app::App;
use crate::live::clock::Tick;
use crate::run::advance::AdvanceError;
use crate::run::decide::Input;

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
    let (mut changed, mut stuck) = (0, Vec::new());
    for run in &due {
        match app.advance(run, Input::Deadline).await {
            Ok(landed) if landed.changed => changed += 1,
            // Due by what is known here, and nothing to do by what is stored: it must not stay so.
            Ok(landed) => {
                app.live.update(&landed.run, landed.version);
                stuck.push(run.to_string());
            }
            Err(AdvanceError::NoRun(run)) => app.live.forget(&run),
            Err(error) => return Err(error.into()),
        }
    }
    let waits = format!("{} runs known, {changed} waits over", app.live.count());
    if stuck.is_empty() {
        return Ok(waits);
    }
    Ok(format!("{waits}; past their time and not changed: {}", stuck.join(", ")))
}
