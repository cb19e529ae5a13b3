//! Each second: ends drains whose reason is over, and has the agents of drained nodes told.
//!
//! It takes no input but the store and what agents last said of their markers, so that it does not matter who was away
//! or was started again: the next pass compares anew ([`crate::run::decide`], `Input::Drains`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use groundcrew_protocol::drain::{Drain, DrainEnd, DrainOrder, DrainTarget, EndDrains};
use groundcrew_protocol::ids::{NodeName, RunId};

use super::{PassError, Passed};
use crate::api::app::App;
use crate::api::drains::end_audit;
use crate::causes;
use crate::live::clock::wall_now;
use crate::run::advance::{self, AdvanceError};
use crate::run::decide::Input;
use crate::store::{RunLookup, StoreError};

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    let drains = end_what_is_over(&app).await?;
    let wanted = wanted(&app, &drains).await?;
    let nodes = wanted.len();
    app.live.drains.replace(wanted);
    let (mut told, mut failed) = (0, None);
    for live in app.live.all() {
        let due = app.live.drains_due(&live);
        let compare = due.as_ref().map(|due| {
            let (wanted, held) = (due.wanted.clone(), due.held.clone());
            Input::Drains { wanted, held, max_age_ms: due.max_age_ms }
        });
        let wait = live.state().waits_for_drain().map(Input::AttemptWaits);
        match advance_all(&app, &live.id, [compare, wait]).await {
            Ok(changed) => {
                told += usize::from(changed);
                if let Some(due) = due {
                    app.live.drains_compared(&live, due);
                }
            }
            Err(AdvanceError::NoRun(run)) => app.live.forget(&run),
            Err(error @ AdvanceError::Store(StoreError::Closed)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(run = %live.id, error = causes::chain(&error), "drains of a run not compared");
                failed.get_or_insert((live.id.clone(), 0, error)).1 += 1;
            }
        }
    }
    match failed {
        Some((run, count, source)) => Err(PassError::Runs { count, run, source }),
        None => Ok(format!("{} drains hold {nodes} nodes; {told} agents are told", drains.len())),
    }
}

/// Puts in what there is; true where the first of them changed something.
async fn advance_all(app: &Arc<App>, run: &RunId, inputs: [Option<Input>; 2]) -> Result<bool, AdvanceError> {
    let [compare, wait] = inputs;
    let changed = match compare {
        Some(input) => app.advance(run, input).await?.changed,
        None => false,
    };
    if let Some(input) = wait {
        app.advance(run, input).await?;
    }
    Ok(changed)
}

/// Ends the drains whose time or run is over; gives the others.
async fn end_what_is_over(app: &App) -> Result<Vec<Drain>, PassError> {
    let now_ms = app.live.clock.read_ms(Instant::now());
    let mut kept = Vec::new();
    for drain in app.store.drains_active().await? {
        let run = match &drain.run {
            Some(run) => how_run_ended(app, run).await?,
            None => None,
        };
        let Some((actor, why)) = over(&drain, now_ms, run) else {
            kept.push(drain);
            continue;
        };
        let end = DrainEnd { at: wall_now(), why };
        let audit = move |drain: &Drain| end_audit(drain, actor);
        app.store.end_drains(EndDrains::Id(drain.id), end, audit).await?;
    }
    Ok(kept)
}

/// Why a drain is over, and by whom; `None` where it goes on. `run`: how its run ended, where it has one that has.
fn over(drain: &Drain, now_ms: u64, run: Option<String>) -> Option<(&'static str, String)> {
    if drain.until_ms.is_some_and(|until_ms| now_ms >= until_ms) {
        return Some(("deadline", "its time is over".to_owned()));
    }
    run.map(|how| ("orchestrator", how))
}

/// How a run ended; `None` for one that goes on.
async fn how_run_ended(app: &App, run: &RunId) -> Result<Option<String>, PassError> {
    if let Some(live) = app.live.get(run) {
        let state = live.state();
        return Ok(state.ended.map(|_| format!("its run {run} has ended ({})", state.standing)));
    }
    Ok(match app.store.run(run).await? {
        RunLookup::Found(stored) => {
            let stored = advance::read(&stored)?;
            stored.ended().map(|_| format!("its run {run} has ended ({})", stored.state()))
        }
        RunLookup::Gone | RunLookup::Never => Some(format!("its run {run} was deleted")),
    })
}

/// What the agents of each node are to be told.
async fn wanted(app: &App, drains: &[Drain]) -> Result<HashMap<NodeName, Vec<DrainOrder>>, StoreError> {
    let mut nodes: HashMap<NodeName, Vec<DrainOrder>> = HashMap::new();
    for drain in drains {
        let names = match &drain.target {
            DrainTarget::Node(name) => vec![name.clone()],
            DrainTarget::Label { key, value } => app.store.nodes_labelled(key, value).await?,
        };
        for name in names {
            nodes.entry(name).or_default().push(drain.order());
        }
    }
    Ok(nodes)
}

/// Reads what is wanted before the first call is answered, so that no claim misses it.
///
/// # Errors
/// Those of the store.
pub async fn load(app: &App) -> Result<(), StoreError> {
    let drains = app.store.drains_active().await?;
    let wanted = wanted(app, &drains).await?;
    app.live.drains.replace(wanted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::time::WallMs;

    use super::*;

    #[test]
    fn a_drain_ends_with_its_time_or_its_run_and_not_before() {
        let drain = |until_ms| Drain {
            id: "d-1".parse().unwrap(),
            target: DrainTarget::Node("n1".parse().unwrap()),
            by: "ann".into(),
            reason: String::new(),
            created: WallMs(0),
            until: None,
            until_ms,
            run: None,
            suppress_notification: false,
            ended: None,
        };
        let cases = [
            (None, 9, None, None),
            (Some(10), 9, None, None),
            (Some(10), 10, None, Some("deadline")),
            (Some(10), 9, Some("cancelled".to_owned()), Some("orchestrator")),
            (None, 9, Some("cancelled".to_owned()), Some("orchestrator")),
        ];
        for (until_ms, now_ms, run, expected) in cases {
            assert_eq!(over(&drain(until_ms), now_ms, run).map(|(actor, _)| actor), expected);
        }
    }
}
