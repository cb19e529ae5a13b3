//! Each second: sends the notices of shutdowns that runs have due ([`crate::run::notice`]), tries again those that a sink did
//! not take, and gives up what is too old.
//!
//! It takes no input but the runs' documents and the settings. What was sent is struck off there, and where that does not land
//! it is tried again in each pass; the sink is told again, under the same id, only where this process is killed between the two.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use groundcrew_protocol::ids::{RunId, SinkName};

use super::{PassError, Passed};
use crate::api::app::App;
use crate::causes;
use crate::live::clock::wall_now;
use crate::notify::sinks::Sink;
use crate::notify::tries::{self, Next, Step, Tries};
use crate::notify::{Key, bodies, send};
use crate::run::advance::AdvanceError;
use crate::run::decide::Input;
use crate::run::notice::{Audience, Notice};
use crate::store::StoreError;

/// Messages under way to one sink at a time.
const UNDER_WAY_MAX: usize = 4;
/// A pass sends for no longer than one try may take: what it does not come to is the next one's.
const PASS: Duration = Duration::from_millis(send::TRY_MS_MAX);

/// With less time than this a try is left to the next pass: a sink that is well would seem to be silent.
const TRY_MIN: Duration = Duration::from_secs(1);

/// A message to send.
struct Job {
    run: RunId,
    notice: Notice,
    audience: Audience,
    tries: Tries,
}

/// What a pass finds.
#[derive(Default)]
struct Due {
    /// What is to be sent now, by sink.
    jobs: HashMap<SinkName, Vec<Job>>,
    /// What is to be struck off, and what became of it.
    settled: Vec<(Key, Result<(), String>)>,
    /// How much waits for another try.
    waiting: usize,
}

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    send_due(&app, Instant::now() + PASS).await
}

/// Sends what is due until then.
///
/// # Errors
/// Where what became of it did not land.
pub async fn send_due(app: &Arc<App>, until: Instant) -> Passed {
    let now_ms = app.live.clock.read_ms(Instant::now());
    let Due { jobs, settled, waiting } = due(app, now_ms);
    let mut struck_off = Ok(());
    for (key, outcome) in settled {
        // One that the store does not take keeps no other waiting.
        struck_off = struck_off.and(strike_off(app, &key, outcome).await);
    }
    let of_sinks = jobs.into_iter().map(|(sink, jobs)| send_to(app, sink, jobs, until));
    // A sink that does not answer keeps no other waiting.
    let outcomes: Vec<Result<(), PassError>> = futures_util::future::join_all(of_sinks).await;
    outcomes.into_iter().collect::<Result<(), PassError>>().and(struck_off)?;
    let counters = &app.counters;
    Ok(format!(
        "{} sinks; {} notices sent, {} given up, {waiting} wait for another try",
        app.notices.sinks.all().len(),
        counters.notices_sent.get(),
        counters.notices_failed.get()
    ))
}

/// What the runs have due, less what waits for another try.
fn due(app: &App, now_ms: u64) -> Due {
    let mut known = app.notices.next.lock().expect("no holder of this lock panics");
    let (mut found, mut kept) = (Due::default(), HashMap::new());
    for live in app.live.all() {
        let notices = live.state().notices.clone();
        for notice in notices {
            for due in &notice.to {
                let key = (live.id.clone(), notice.number, due.sink.clone());
                let mut next = known.remove(&key).unwrap_or_default();
                let is_known = app.notices.sinks.get(&due.sink).is_some();
                match tries::step(&next, is_known, notice.at_ms, now_ms) {
                    Step::StrikeOff(outcome) => found.settled.push((key.clone(), outcome)),
                    Step::GiveUp(why) => {
                        next = settled(app, &key, Err(why.clone()));
                        found.settled.push((key.clone(), Err(why)));
                    }
                    Step::Wait => found.waiting += 1,
                    Step::Try(tries) => {
                        let (run, notice, audience) = (live.id.clone(), notice.clone(), due.audience);
                        let job = Job { run, notice, audience, tries };
                        found.jobs.entry(due.sink.clone()).or_insert_with(Vec::new).push(job);
                    }
                }
                kept.insert(key, next);
            }
        }
    }
    // What is due no more, as with a run that was deleted, is forgotten.
    *known = kept;
    found
}

/// Sends to one sink, a few at a time.
async fn send_to(app: &Arc<App>, name: SinkName, jobs: Vec<Job>, until: Instant) -> Result<(), PassError> {
    let Some(sink) = app.notices.sinks.get(&name) else { return Ok(()) };
    let sends = stream::iter(jobs).map(|job| send_one(app, sink, job, until));
    let outcomes: Vec<Result<(), PassError>> = sends.buffer_unordered(UNDER_WAY_MAX).collect().await;
    outcomes.into_iter().collect()
}

async fn send_one(app: &Arc<App>, sink: &Sink, job: Job, until: Instant) -> Result<(), PassError> {
    let left = until.saturating_duration_since(Instant::now());
    if left < TRY_MIN {
        return Ok(());
    }
    let Job { run, notice, audience, tries } = job;
    let stored = match app.run(&run).await {
        Ok((stored, _version)) => stored,
        // Deleted a moment ago, and its notices with it; or the store fails, which the next pass says by its own calls.
        Err(_gone) => return Ok(()),
    };
    let body = bodies::of_agent(&stored, &notice, audience, &app.notices.url).bytes(sink.kind);
    let outcome = app.notices.sender.send(sink, body, left).await;
    if let Err(error) = &outcome {
        let (try_number, url, why) = (tries.made + 1, &sink.url, causes::chain(error));
        tracing::warn!(%run, sink = %sink.name, %url, try_number, of = sink.tries, why, "notice not sent");
    }
    let key = (run, notice.number, sink.name.clone());
    let now_ms = app.live.clock.read_ms(Instant::now());
    let (next, outcome) = match tries::after(tries, outcome, sink.tries, now_ms) {
        Next::Settled(outcome) => (settled(app, &key, outcome.clone()), Some(outcome)),
        again @ Next::Again(_) => (again, None),
    };
    // Before it is struck off: what was told is told whether or not that lands.
    app.notices.next.lock().expect("no holder of this lock panics").insert(key.clone(), next);
    match outcome {
        Some(outcome) => strike_off(app, &key, outcome).await,
        None => Ok(()),
    }
}

/// Says and counts what became of a notice, once.
fn settled(app: &App, (run, _number, sink): &Key, outcome: Result<(), String>) -> Next {
    match &outcome {
        Ok(()) => {
            app.counters.notices_sent.one();
            tracing::info!(%run, %sink, "notice sent");
        }
        Err(why) => {
            app.counters.notices_failed.one();
            tracing::error!(%run, %sink, why, "notice given up");
        }
    }
    Next::Settled(outcome)
}

async fn strike_off(app: &Arc<App>, key: &Key, outcome: Result<(), String>) -> Result<(), PassError> {
    let (run, number, sink) = key;
    let input = Input::NoticeSettled { number: *number, sink: sink.clone(), outcome };
    match app.advance(run, input).await {
        Ok(_landed) => {}
        Err(AdvanceError::NoRun(run)) => app.live.forget(&run),
        Err(error @ AdvanceError::Store(StoreError::Closed)) => return Err(error.into()),
        Err(source) => return Err(PassError::Runs { count: 1, run: run.clone(), source }),
    }
    Ok(())
}

/// Tells the fleet's sinks that this orchestrator itself shuts down: one try each, all at once.
pub async fn tell_own_end(app: Arc<App>) {
    let sinks = app.notices.sinks.all().iter().filter(|sink| sink.is_of_fleet);
    let body = bodies::of_orchestrator(&app.notices.url, wall_now());
    let tell = async |sink: &Sink| match app.notices.sender.send(sink, body.bytes(sink.kind), PASS).await {
        Ok(()) => tracing::info!(sink = %sink.name, "own shutdown told"),
        Err(error) => {
            let (url, why) = (&sink.url, causes::chain(&error));
            tracing::warn!(sink = %sink.name, %url, why, "own shutdown not told");
        }
    };
    futures_util::future::join_all(sinks.map(tell)).await;
}
