//! Each second, and at once when a process ends that is held: brings together what runtimes know of agents, what their
//! files say, and what runs wait for ([`crate::agents`]).
//!
//! It takes no input but the world and the store, so that whatever failed in one pass is done by the next.

use std::collections::HashMap;
use std::sync::Arc;

use groundcrew_durable::fault;
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::runtime::{AgentRuntime, RuntimeSource};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{PassError, Passed};
use crate::agents::Pass;
use crate::api::app::App;
use crate::causes;
use crate::live::clock::wall_now;
use crate::points;
use crate::run::advance::AdvanceError;
use crate::run::decide::Input;
use crate::store::StoreError;

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    let claimed = claims(&app).into_keys().filter(|runtime| runtime.source == RuntimeSource::Local);
    let (looking, processes) = (app.clone(), claimed.collect::<Vec<_>>());
    let looked = tokio::task::spawn_blocking(move || looking.agents.look(&processes, wall_now())).await;
    let mut pass = looked.map_err(PassError::Defect)?.map_err(PassError::Homes)?;
    fault::point(points::AGENTS_LOOKED);
    let agents = pass.agents();
    app.agents.show(&mut pass);
    // Told before it is stored: a successor's row may replace the last that is known of who ended.
    let told = tell(&app, &pass).await;
    app.store.put_facts(std::mem::take(&mut pass.changed)).await?;
    app.store.forget_facts(std::mem::take(&mut pass.forgotten)).await?;
    fault::point(points::AGENTS_STORED);
    app.agents.stored();
    for end in std::mem::take(&mut pass.begun) {
        wake_at(&app, end);
    }
    let told = told?;
    let Pass { failures, left_out, .. } = pass;
    Ok(format!(
        "{agents} agents; {told} runs are told of an end; {failures} files not kept, {left_out} homes left out"
    ))
}

/// Reads what was known before the first call is answered, so that no list lacks it.
///
/// # Errors
/// Those of the store.
pub async fn load(app: &App) -> Result<(), StoreError> {
    app.agents.load(app.store.facts().await?);
    Ok(())
}

/// The runs that go on and do not know of an end yet, by what their agents call themselves.
fn claims(app: &App) -> HashMap<AgentRuntime, RunId> {
    let all = app.live.all().into_iter();
    let claim = all.filter_map(|run| {
        let state = run.state();
        let runtime = state.claim.as_ref()?.runtime.clone()?;
        (state.ended.is_none() && state.end().is_none()).then(|| (runtime, run.id.clone()))
    });
    claim.collect()
}

/// Has the next pass come once this becomes readable.
fn wake_at(app: &Arc<App>, end: std::os::fd::OwnedFd) {
    let (app, stop) = (app.clone(), app.stop.clone());
    let wait = async move {
        // SAFETY: an OwnedFd is one open file and stays that for as long as it lives, which is in this AsyncFd.
        match unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) } {
            // The failure of either leaves it to the pass of the next second.
            Ok(end) => drop(end.readable().await),
            Err(error) => tracing::warn!(%error, "the end of a process is looked for each second only"),
        }
        app.agents.wake.notify_one();
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = wait => {}
        }
    });
}

/// Tells runs of the ends that they do not know. How many.
async fn tell(app: &Arc<App>, pass: &Pass) -> Result<usize, PassError> {
    let (mut told, mut failed) = (0, None);
    let claims = claims(app);
    for end in &pass.ends {
        let Some(run) = claims.get(&end.runtime) else { continue };
        match app.advance(run, Input::RuntimeEnded(Box::new(end.clone()))).await {
            Ok(landed) => {
                fault::point(points::AGENTS_TOLD);
                told += usize::from(landed.changed);
            }
            Err(AdvanceError::NoRun(run)) => app.live.forget(&run),
            Err(error @ AdvanceError::Store(StoreError::Closed)) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%run, error = causes::chain(&error), "run not told of an end");
                failed.get_or_insert((run.clone(), 0, error)).1 += 1;
            }
        }
    }
    match failed {
        Some((run, count, source)) => Err(PassError::Runs { count, run, source }),
        None => Ok(told),
    }
}
