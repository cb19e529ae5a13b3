//! Runs the agent: owns its tasks and threads, performs what the control loop decides, and stops in order.
//!
//! ```text
//!   main loop (one thread)      control calls, heartbeats, forwarding: tasks of one runtime
//!   plain threads               the I/O thread, the stage in flight, the sensors, the console
//! ```
//!
//! Only plain threads wait for disks, children and terminals; the loop never does, so that none of them can delay
//! a heartbeat. What the loop decides is in [`crate::control`]; here is no decision about the run.

mod drains;
mod facts;
mod hooks;
mod informed;
mod perform;
mod stage;
mod start;
mod tell;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use groundcrew_client::PinSet;
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::limits::CALL_TIMEOUT_MS;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{Heartbeat, LogLevel};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::artifacts::{self, Uploader};
use crate::client::Orchestrator;
use crate::clock::WallClock;
use crate::console::Console;
use crate::control::core::{Core, Event, Facts};
use crate::control::memory::Memory;
use crate::drain::Watcher;
use crate::drain::status::Standing;
use crate::files::set_aside;
use crate::forward::Forwarder;
use crate::heartbeat::{self, Activity, Beats};
use crate::home::Home;
use crate::info::{InfoFile, LAST_WORD_MAX};
use crate::io_thread::{HomeHealth, IoThread};
use crate::outbox::Outbox;
use crate::probe::Root;
use crate::process::sweep::Swept;
use crate::process::tool::{KILL_PATIENCE, OUTPUT_PATIENCE, TERM_PATIENCE};
use crate::process::{ChildRecords, child_record, sweep};
use crate::sensors::Sensors;
use crate::settings::Settings;
use crate::spool::{Kind, LineSender, Spool};
use crate::stamp::wall;

/// Events that wait for the loop: a handful of tasks with one event each.
const EVENTS_MAX: usize = 64;
/// How often what could not be written or moved is tried again.
const RETRY_MS: u64 = 15_000;

/// Why the agent cannot run, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The home.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// A file of the home, or the system.
    #[error("starting: {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was aborted, and no other one would come by itself after an end without a failure.
    #[error(
        "what the node's hook for a drain has done is not undone: an agent is to be started again in this home"
    )]
    Owes,
}

fn system<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::System { what, source: Box::new(source) }
}

/// The agent.
pub(crate) struct Agent {
    settings: Settings,
    core: Core,
    began: Instant,
    events: mpsc::Sender<Event>,
    io: IoThread,
    home: PathBuf,
    run_pins: PinSet,
    outbox: Outbox,
    lines: LineSender,
    log: Spool,
    readings: Spool,
    console: Console,
    control: Arc<Orchestrator>,
    beats: Arc<Orchestrator>,
    latest: watch::Sender<Option<Heartbeat>>,
    claim: watch::Sender<ClaimNumber>,
    forwarder: Arc<Forwarder>,
    artifacts: artifacts::Store,
    artifact_kept: Arc<Notify>,
    clock: Arc<WallClock>,
    /// This machine's clock minus the orchestrator's, in milliseconds.
    skew_ms: i64,
    /// What the control loop keeps, where the disk refused it.
    unwritten: Option<Box<Memory>>,
    drain: Watcher,
    standing: watch::Sender<Standing>,
    stage: Option<stage::Running>,
    finished: Option<stage::Finished>,
    hooking: hooks::Hooking,
    claim_answer: start::FromClaim,
    children: Arc<ChildRecords>,
    activity: Activity,
    info: InfoFile,
    said_failure: bool,
    /// Why authorized_keys was not swept yet of what other agents have left there, as it was said; nothing once it was.
    keys_unswept: Option<String>,
    /// The run is over: lines go to the console alone, and no readings are taken.
    is_over: Arc<AtomicBool>,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Where it cannot start; afterwards nothing ends it but a signal or an `abort`.
pub async fn run(settings: Settings, console: Console) -> Result<(), StartError> {
    let home = Home::open(&settings.home, &settings.run)?;
    let facts = facts::facts(&settings, &home)?;
    let info = informed::start(&settings, &home, &facts, console.clone())?;
    let ended = walk(settings, &home, facts, info.clone(), console).await;
    info.end(informed::last_word(&ended));
    ended.map(|_claim| ())
}

/// The agent's life in an open home. The claim that it had at the end.
async fn walk(
    settings: Settings,
    home: &Home,
    facts: Facts,
    info: InfoFile,
    console: Console,
) -> Result<Option<ClaimNumber>, StartError> {
    let (events, waiting) = mpsc::channel(EVENTS_MAX);
    let (swept, unknown) = sweep_children(home.path());
    let memory = home.run().clone().under_settings(&settings.pins);
    let hooks = (settings.hooks.clone(), home.hooks().clone());
    let core = Core::new(facts, memory, seed()?).with_hooks(hooks.0, hooks.1);
    let mut agent = Agent::new(settings, home, events, console, (core, info)).await?;
    for note in home.notes().to_vec() {
        agent.say(LogLevel::Warn, note);
    }
    if let Some(unknown) = unknown {
        agent.say(LogLevel::Error, unknown);
    }
    for (program, count) in swept.ended {
        agent.say(
            LogLevel::Warn,
            format!("ended {count} processes of {program} that an earlier agent left running"),
        );
    }
    if !swept.stuck.is_empty() {
        agent.say(
            LogLevel::Error,
            format!("processes of an earlier agent cannot be killed: {:?}", swept.stuck),
        );
    }
    let (health, is_over) = (agent.io.health().clone(), agent.is_over.clone());
    let sensors = Sensors::start(agent.readings.clone(), Root::system(), health, is_over)
        .map_err(system("the sensors' thread"))?;
    let _answering = agent.answer_on_this_machine().await?;
    agent.work(waiting).await;
    sensors.stop();
    match agent.core.leaves_owed() {
        true => Err(StartError::Owes),
        false => Ok(agent.core.claim()),
    }
}

impl Agent {
    async fn new(
        settings: Settings,
        home: &Home,
        events: mpsc::Sender<Event>,
        console: Console,
        (core, info): (Core, InfoFile),
    ) -> Result<Agent, StartError> {
        let io = IoThread::start(HomeHealth::default()).map_err(system("the I/O thread"))?;
        let (outbox, outbox_notes) = Outbox::open(home, io.clone()).map_err(system("the outbox"))?;
        let (log, log_notes) = Spool::open(home, Kind::Log).map_err(system("the spool of log lines"))?;
        let lines = LineSender::new(log.clone(), io.clone());
        let memory = core.memory().clone();
        let pins = PinSet::new(memory.pins_beside(&settings.pins));
        let pin_notes = memory.notes_on_pins(&settings.pins);
        let connection = || {
            let token = Some(memory.token.clone());
            Orchestrator::new(settings.url.clone(), pins.clone(), token, settings.run.clone())
        };
        let (claim, claimed) = watch::channel(ClaimNumber(0));
        let (readings, readings_notes) =
            Spool::open(home, Kind::Sensor).map_err(system("the spool of readings"))?;
        let spools = [log.clone(), readings.clone()];
        let (cancel, says) = (CancellationToken::new(), console.clone());
        let forwarder = Forwarder::start(spools, io.clone(), connection(), claimed, cancel, says);
        let (control, beats) = (Arc::new(connection()), Arc::new(connection()));
        let is_over = Arc::<AtomicBool>::default();
        let says = Box::new(tell::teller(&console, &lines, &is_over));
        let drain = drains::watch(&settings, core.facts(), says).await;
        let drain = drain.map_err(system("the thread that watches for drains"))?;
        let agent = Agent {
            standing: watch::channel(drains::standing(&core)).0,
            core,
            began: Instant::now(),
            events,
            home: home.path().to_owned(),
            run_pins: pins.clone(),
            outbox,
            lines,
            log,
            readings,
            console,
            control,
            beats,
            latest: watch::channel(None).0,
            claim,
            forwarder: Arc::new(forwarder),
            artifacts: artifacts::Store::in_home(home.path(), &memory.run),
            artifact_kept: Arc::default(),
            clock: Arc::new(WallClock::of_machine(settings.clock)),
            skew_ms: 0,
            unwritten: None,
            drain,
            stage: None,
            finished: None,
            hooking: hooks::Hooking::default(),
            claim_answer: start::FromClaim::default(),
            children: Arc::new(ChildRecords::in_home(home.path())),
            activity: Activity::default(),
            info,
            said_failure: false,
            keys_unswept: Some(String::new()),
            is_over,
            io,
            settings,
        };
        for note in outbox_notes.into_iter().chain(log_notes).chain(readings_notes).chain(pin_notes) {
            agent.say(LogLevel::Warn, note);
        }
        for unknown in agent.settings.unknown.clone() {
            agent.say(
                LogLevel::Warn,
                format!("the kernel command line holds {unknown}, which this agent does not know"),
            );
        }
        Ok(agent)
    }

    /// The loop: takes what happens, asks the core, performs what it says.
    async fn work(&mut self, mut waiting: mpsc::Receiver<Event>) {
        let (Ok(mut term), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return self.say(LogLevel::Error, "signals cannot be listened to");
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(self.beats().run());
        // It ends only with the loop, or where it panics; then the next agent sends what is left.
        let uploads = tokio::spawn(self.uploader().run());
        let mut retry = interval(Duration::from_millis(RETRY_MS));
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = interval(Duration::from_millis(self.settings.heartbeat_interval_ms));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut marker, mut announced) = (self.drain.latest(), self.run_pins.announced());
        let outbox = self.outbox.entries();
        let mut ends = self.take(Event::Start(outbox)).await;
        while !ends {
            let wake = self.wake();
            let event = tokio::select! {
                Some(event) = waiting.recv() => event,
                () = heard(&mut term, &mut interrupt) => Event::Stop,
                Some(_) = tasks.join_next() => {
                    // Without heartbeats the orchestrator would hold the run for silence.
                    tasks.spawn(self.beats().run());
                    continue
                }
                _ = beat.tick() => {
                    self.inform(true);
                    continue
                }
                _ = retry.tick() => {
                    self.retry().await;
                    Event::Reconcile(WallMs(wall().0 - self.skew_ms))
                }
                Ok(()) = announced.changed() => Event::Announced(announced.borrow_and_update().clone()),
                Ok(()) = marker.changed() => Event::Drain(marker.borrow_and_update().clone()),
                () = sleep_until(wake.unwrap_or_else(far).into()), if wake.is_some() => Event::Tick,
            };
            ends = self.take(event).await;
        }
        uploads.abort();
        self.part().await;
    }

    /// Takes an event in and performs what follows. True once the agent is to end.
    async fn take(&mut self, event: Event) -> bool {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.before(&event);
            let now_ms = self.now_ms();
            let actions = self.core.step(event, now_ms);
            if self.core.is_active() {
                // What becomes active is said before anything is done for it, and its end after.
                self.stand();
            }
            for action in actions {
                match self.perform(action).await {
                    perform::Then::Go => {}
                    perform::Then::Take(event) => events.push_back(event),
                    perform::Then::End => return true,
                }
            }
            self.stand();
            // What this step had to say of the end was still told.
            self.is_over.store(self.core.is_over(), Ordering::Relaxed);
            self.latest.send_replace(self.core.heartbeat("", false, wall()));
            self.inform(false);
            self.claim.send_if_modified(|known| {
                let claim = self.core.claim().unwrap_or_default();
                std::mem::replace(known, claim) != claim
            });
        }
        false
    }

    fn beats(&self) -> Beats {
        Beats {
            orchestrator: self.beats.clone(),
            latest: self.latest.subscribe(),
            activity: self.activity.clone(),
            health: self.io.health().clone(),
            interval: Duration::from_millis(self.settings.heartbeat_interval_ms),
            events: self.events.clone(),
        }
    }

    fn uploader(&self) -> Uploader {
        let token = Some(self.core.memory().token.clone());
        let (url, run) = (self.settings.url.clone(), self.settings.run.clone());
        let say = tell::teller(&self.console, &self.lines, &self.is_over);
        Uploader {
            store: self.artifacts.clone(),
            io: self.io.clone(),
            orchestrator: Orchestrator::new(url, self.run_pins.clone(), token, run),
            claim: self.claim.subscribe(),
            kept: self.artifact_kept.clone(),
            say: Box::new(move |text| say(LogLevel::Warn, text)),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wake(&self) -> Option<Instant> {
        let now_ms = self.now_ms();
        // A wake that is past was answered by the step that set it; only a later one is waited for.
        let later = |wake_ms: &u64| *wake_ms > now_ms;
        let wakes = [self.core.wake_ms().filter(later), self.core.hook_wake_ms().filter(later)];
        wakes.into_iter().flatten().min().map(|wake_ms| self.began + Duration::from_millis(wake_ms))
    }

    async fn retry(&mut self) {
        self.outbox.retry().await;
        self.persist_again().await;
        self.keep_hooks_again().await;
        self.sweep_keys().await;
        if let (Some(why), false) = (self.io.health().failure(), self.said_failure) {
            self.said_failure = true;
            self.say(
                LogLevel::Error,
                format!("the home fails, what is kept from now on may be lost with the power: {why}"),
            );
        }
    }

    /// The last words: what became of directives, and what is in the spools.
    async fn part(&mut self) {
        self.say(LogLevel::Info, "the agent ends");
        let home_failed = self.io.health().failure().is_some();
        if let Some(last) = self.core.heartbeat("ends", home_failed, wall()) {
            match heartbeat::send(&self.beats, last).await {
                Event::Heartbeat { answered: Err(failure), .. } => {
                    let why = failure.text();
                    let text = format!(
                        "the orchestrator may not know of this shutdown, the next agent tells it; the last heartbeat: {why}"
                    );
                    self.console.say(LogLevel::Warn, &text);
                }
                _answered => {
                    if let Some(memory) = self.core.shutdown_heard() {
                        self.persist(memory).await;
                    }
                }
            }
        }
        if !self.forwarder.flush(Duration::from_millis(PART_MS)).await {
            self.console.say(LogLevel::Warn, "not every line has arrived; the next agent sends them");
        }
    }

    /// Tells something: on the console, and as a framing line to the orchestrator for as long as the run is not over.
    pub(crate) fn say(&self, level: LogLevel, text: impl Into<String>) {
        tell::tell(&self.console, &self.lines, &self.is_over, level, text.into());
    }
}

/// How long the end of the agent waits for its last lines to arrive; what did not is sent by the next agent.
const PART_MS: u64 = 5_000;

/// How long an orderly end takes at most, where no hook of the node's runs: whoever ends the agent should have the patience.
/// The stage's processes end, or are ended; the last heartbeat is answered; the last lines arrive; the last word is in the
/// file. A hook may take as long as the node's file gives it.
pub const END_MAX: Duration = TERM_PATIENCE
    .saturating_add(KILL_PATIENCE)
    .saturating_add(OUTPUT_PATIENCE)
    .saturating_add(Duration::from_millis(CALL_TIMEOUT_MS))
    .saturating_add(Duration::from_millis(PART_MS))
    .saturating_add(LAST_WORD_MAX);

async fn heard(term: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Ends what an earlier agent left running. Where its record cannot be read, that is set aside and said: an agent
/// that never starts again would help nobody.
fn sweep_children(home: &Path) -> (Swept, Option<String>) {
    let error = match sweep::sweep(home) {
        Ok(swept) => return (swept, None),
        Err(error) => error,
    };
    let path = home.join(child_record::FILE_NAME);
    let aside = match set_aside(&path) {
        Ok(aside) => format!("it is now {}", aside.display()),
        Err(error) => format!("it cannot be moved either: {}", crate::errors::chain(&error)),
    };
    let unknown = format!(
        "nobody knows what an earlier agent may have left running: {} cannot be read ({error}); {aside}",
        path.display()
    );
    (Swept::default(), Some(unknown))
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn seed() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(system("drawing a random number"))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_record_of_children_is_set_aside_and_said_and_keeps_nobody_from_starting() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(child_record::FILE_NAME), b"[{\"pid\":").unwrap();
        let (swept, unknown) = sweep_children(home.path());
        assert_eq!(swept, Swept::default());
        let unknown = unknown.unwrap();
        assert!(unknown.contains("nobody knows") && unknown.contains("child.json.broken-1"), "{unknown}");
        assert_eq!(sweep_children(home.path()).1, None);
    }
}
