//! Follows one run: asks where it stands, listens to its events, comes again after a broken connection, and shows all
//! of it as bars, lines or JSON. What has been seen and when it is over is [`progress`]'s to say.

mod bars;
mod progress;
mod quiet;

use std::time::Duration;

use anyhow::Result;
use groundcrew_client::{Error, Event, EventStream};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::limits::LOG_CHUNK_AGE_MS;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::api::{Api, explained};
use crate::output::{Reader, print, print_bytes, say_aside};
use crate::words::now;
pub(crate) use progress::End;
use progress::{Line, Progress, Telling};

/// The orchestrator sends a comment after 15 s of silence; three of them missing mean that it is gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(45);
/// After the end, so much silence means that everything of the last decision has come.
const QUIET_AT_END: Duration = Duration::from_millis(300);
/// The same where an agent speaks: its last lines wait so long for company, and then for an answer.
const QUIET_OF_AGENT: Duration = Duration::from_millis(LOG_CHUNK_AGE_MS + 1_000);
/// And it is not waited for longer than this.
const LATE_AT_END: Duration = Duration::from_secs(10);
/// How often bars are drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// How a run is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Face {
    /// On a terminal: a bar for each stage, and the tail of the log.
    Bars(Reader),
    /// A line for each event.
    Lines,
    /// The same on standard error, where standard output is for something else.
    LinesToStderr,
    /// Each event as the orchestrator says it, one JSON value in a line.
    Json,
}

/// How to follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Go on while the run is held.
    pub(crate) through_holds: bool,
    /// How it is shown.
    pub(crate) face: Face,
}

/// Follows until the run has ended or is held.
///
/// # Errors
/// A refusal that time does not mend. A connection that breaks is none: it is made again, for as long as it takes.
pub(crate) async fn run(api: &Api, run: &RunId, options: Options) -> Result<End> {
    let mut screen = Screen::new(options.face);
    let mut progress = Progress::new(options.through_holds);
    let mut backoff = Backoff::new();
    loop {
        let error = match follow(api, run, &mut progress, &mut screen, &mut backoff).await {
            Ok(Some(end)) => {
                screen.finish(&progress);
                return Ok(end);
            }
            Ok(None) => "the orchestrator ended the stream".to_owned(),
            Err(Failed::Ask(error)) if error.is_retried_quickly() => error.chain(),
            Err(Failed::Ask(error)) => return Err(explained(error)),
            Err(Failed::Read(error) | Failed::Print(error)) => return Err(error),
        };
        let lines = progress.take(Telling::Lost(format!("{error}; asking again in {}", backoff.words())));
        screen.show(&progress, &lines)?;
        backoff.wait().await;
    }
}

/// Why following stopped.
enum Failed {
    /// There was no answer, or a refusal.
    Ask(Error),
    /// What came is not understood.
    Read(anyhow::Error),
    /// Nothing can be shown any more.
    Print(anyhow::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Ask(error)
    }
}

/// Follows on one connection. `None` where the orchestrator ended the stream before the run was over.
async fn follow(
    api: &Api,
    run: &RunId,
    progress: &mut Progress,
    screen: &mut Screen,
    backoff: &mut Backoff,
) -> Result<Option<End>, Failed> {
    let mut events = api.events(run, progress.last_event()).await?;
    let lines = progress.take(Telling::View(Box::new(api.run(run).await?)));
    screen.show(progress, &lines).map_err(Failed::Print)?;
    backoff.reset();
    loop {
        let Some(event) = next(&mut events, progress, screen).await? else { return Ok(None) };
        take(api, run, &event, progress, screen).await?;
        if let Some(end) = progress.end() {
            drain(&mut events, api, run, progress, screen).await?;
            return Ok(Some(progress.end().unwrap_or(end)));
        }
    }
}

/// The next event, with bars that move meanwhile.
async fn next(
    events: &mut EventStream,
    progress: &Progress,
    screen: &mut Screen,
) -> Result<Option<Event>, Error> {
    let mut tick = ticks();
    loop {
        tokio::select! {
            event = events.next(SILENCE_MAX) => return event,
            _ = tick.tick(), if screen.moves() => screen.draw(progress),
        }
    }
}

fn ticks() -> Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tick
}

/// Takes one event in; one that was just decided makes the view stale.
async fn take(
    api: &Api,
    run: &RunId,
    event: &Event,
    progress: &mut Progress,
    screen: &mut Screen,
) -> Result<(), Failed> {
    screen.pass_on(event).map_err(Failed::Print)?;
    let lines = progress.take(progress::parse(&event.event, &event.data).map_err(Failed::Read)?);
    screen.show(progress, &lines).map_err(Failed::Print)?;
    if progress.wants_view() {
        let lines = progress.take(Telling::View(Box::new(api.run(run).await?)));
        screen.show(progress, &lines).map_err(Failed::Print)?;
    }
    Ok(())
}

/// What belongs to the last decision comes right behind it, and the last lines of the agent's log a little later.
///
/// # Errors
/// Where nothing can be shown any more. That the end is known, nothing else that happens now takes back: what a broken
/// connection kept back, or nobody understood, is in the run's log.
async fn drain(
    events: &mut EventStream,
    api: &Api,
    run: &RunId,
    progress: &mut Progress,
    screen: &mut Screen,
) -> Result<(), Failed> {
    let until = Instant::now() + LATE_AT_END;
    let quiet = if progress.agent_may_write() { QUIET_OF_AGENT } else { QUIET_AT_END };
    while Instant::now() < until {
        let Ok(Ok(Some(event))) = tokio::time::timeout(quiet, next(events, progress, screen)).await else {
            return Ok(());
        };
        match take(api, run, &event, progress, screen).await {
            Ok(()) => {}
            Err(Failed::Ask(_) | Failed::Read(_)) => return Ok(()),
            Err(Failed::Print(error)) => return Err(Failed::Print(error)),
        }
    }
    Ok(())
}

/// Where everything is shown.
enum Screen {
    Bars(Box<bars::Bars>),
    Lines,
    LinesToStderr,
    Json,
}

impl Screen {
    fn new(face: Face) -> Screen {
        match face {
            Face::Bars(reader) => Screen::Bars(Box::new(bars::Bars::new(reader))),
            Face::Lines => Screen::Lines,
            Face::LinesToStderr => Screen::LinesToStderr,
            Face::Json => Screen::Json,
        }
    }

    fn moves(&self) -> bool {
        matches!(self, Screen::Bars(_))
    }

    fn draw(&mut self, progress: &Progress) {
        if let Screen::Bars(bars) = self {
            bars.draw(progress, now());
        }
    }

    /// Prints what was just said. Bars show the state itself, and only say what is out of the ordinary.
    fn show(&mut self, progress: &Progress, lines: &[Line]) -> Result<()> {
        match self {
            Screen::Bars(bars) => {
                for line in lines.iter().filter(|line| line.matters) {
                    bars.say(&line.text)?;
                }
                bars.draw(progress, now());
            }
            Screen::Lines => {
                for line in lines {
                    print(&format!("{line}\n"))?;
                }
            }
            Screen::LinesToStderr => {
                for line in lines {
                    say_aside(&line.to_string());
                }
            }
            Screen::Json => {}
        }
        Ok(())
    }

    fn pass_on(&self, event: &Event) -> Result<()> {
        match self {
            Screen::Json if event.event == "event" => print_bytes(event.data.as_bytes()),
            Screen::Json | Screen::Bars(_) | Screen::Lines | Screen::LinesToStderr => Ok(()),
        }
    }

    fn finish(&mut self, progress: &Progress) {
        if let Screen::Bars(bars) = self {
            bars.finish(progress, now());
        }
    }
}

/// A pause that doubles, so that an orchestrator that is down is not asked without end.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(15);

    /// Begins with the shortest pause.
    pub(crate) fn new() -> Backoff {
        Backoff { next: Backoff::FIRST }
    }

    /// After an answer the next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = Backoff::FIRST;
    }

    /// The next pause, for people.
    pub(crate) fn words(&self) -> String {
        format!("{} s", self.next.as_secs())
    }

    /// Pauses.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Backoff::MAX);
    }
}
