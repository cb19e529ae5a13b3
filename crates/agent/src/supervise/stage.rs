//! The stage in flight: a plain thread of its own, told to end by a handle.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLevel, LogLine};
use tokio::sync::mpsc;

use crate::console::Console;
use crate::control::core::{Asked, Event};
use crate::heartbeat::Activity;
use crate::io_thread::HomeHealth;
use crate::process::Cancel;
use crate::spool::{Spool, SpoolError};
use crate::stamp::{stamp, wall};
use crate::vet::{Leave, LineSink, ProgressSink, StageContext, StageOutcome, run_stage};

/// A stage that runs.
pub(super) struct Running {
    /// Ends it.
    pub cancel: Cancel,
    /// Lets it do what it asks for, or not.
    pub permit: Permit,
    thread: std::thread::JoinHandle<Finished>,
}

/// A stage that has ended.
pub(super) struct Finished {
    /// How it came out.
    pub outcome: StageOutcome,
    /// When it began.
    pub began: WallMs,
    /// When it ended.
    pub ended: WallMs,
}

impl Running {
    /// Starts a stage. Its end is told as [`Event::StageEnded`].
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(
        context: StageContext,
        permit: Permit,
        events: mpsc::Sender<Event>,
    ) -> std::io::Result<Running> {
        let cancel = context.cancel.clone();
        let thread = std::thread::Builder::new().name("stage".to_owned()).spawn(move || {
            let _told = TellEnd(events);
            let began = wall();
            let outcome = run_stage(&context);
            Finished { outcome, began, ended: wall() }
        })?;
        Ok(Running { cancel, permit, thread })
    }

    /// The outcome, once the end was told. `None` where the thread itself broke off.
    pub fn finish(self) -> Option<Finished> {
        self.thread.join().ok()
    }
}

/// Tells the end of a stage however its thread ends: a stage that broke off must not stay in flight.
struct TellEnd(mpsc::Sender<Event>);

impl Drop for TellEnd {
    fn drop(&mut self) {
        // It fails only where the loop has ended, and then nobody asks.
        let _ended_loop = self.0.blocking_send(Event::StageEnded);
    }
}

/// Answers a stage that waits for leave.
#[derive(Debug)]
pub(super) struct Permit(SyncSender<Result<(), String>>);

impl Permit {
    /// Answers. Of two answers that nobody has taken yet the first counts: a stage that was told to go on and then to end
    /// looks at its cancel handle before it does anything.
    pub fn give(&self, answer: Result<(), String>) {
        let _first_counts_or_stage_is_over = self.0.try_send(answer);
    }
}

/// What a stage waits by for leave, and what answers it.
pub(super) fn leave(events: mpsc::Sender<Event>) -> (Leave, Permit) {
    let (permit, answers) = sync_channel(1);
    let answers = Mutex::new(answers);
    let leave = move |asked: Asked, until: Instant| {
        let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let over = || "the agent ends".to_owned();
        events.blocking_send(Event::LeaveWanted(asked)).map_err(|_| over())?;
        match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(over()),
            Err(RecvTimeoutError::Timeout) => {
                Err("the orchestrator has not acknowledged it by the stage's deadline".to_owned())
            }
        }
    };
    (Arc::new(leave), Permit(permit))
}

/// Takes a stage's lines: into the spool first, then onto the console.
pub(super) fn line_sink(stage: Stage, spool: Spool, console: Console, health: HomeHealth) -> LineSink {
    Arc::new(move |level: LogLevel, text: String| {
        let line = LogLine { ts: stamp(), level: level.clone(), stage: Some(stage.clone()), text };
        // A line that the spool cannot take is counted there, and the next chunk says so.
        if let Err(error) = spool.append_line(&line) {
            if matches!(error, SpoolError::Disk { .. }) {
                health.fail(crate::errors::chain(&error));
            }
            console.say(LogLevel::Error, &crate::errors::chain(&error));
        }
        console.say_of(&stage, level, &line.text);
    })
}

/// Takes a stage's progress into what the next heartbeat says.
pub(super) fn progress_sink(activity: Activity) -> ProgressSink {
    Arc::new(move |progress| {
        let percent = (progress.fraction * 100.0) as u32;
        activity.set(&format!("{percent} % {}", progress.activity));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_waits_for_leave_until_it_is_answered_or_late() {
        let (events, mut waiting) = mpsc::channel(8);
        let (leave, permit) = leave(events);
        let far = || Instant::now() + std::time::Duration::from_secs(600);
        for answer in [Ok(()), Err("no".to_owned())] {
            std::thread::scope(|scope| {
                let asks = scope.spawn(|| leave(Asked::Reboot, far()));
                assert!(matches!(waiting.blocking_recv(), Some(Event::LeaveWanted(Asked::Reboot))));
                permit.give(answer.clone());
                assert_eq!(asks.join().unwrap(), answer);
            });
        }
        assert!(leave(Asked::Reboot, Instant::now()).unwrap_err().contains("deadline"));
        // One that was ended before it asked gets none, whatever is said later.
        permit.give(Err("ended".to_owned()));
        permit.give(Ok(()));
        assert_eq!(leave(Asked::Reboot, far()), Err("ended".to_owned()));
        drop(permit);
        assert_eq!(leave(Asked::Reboot, far()), Err("the agent ends".to_owned()));
    }

    #[test]
    fn the_end_of_a_stage_is_told_also_where_its_thread_breaks_off() {
        let (events, mut waiting) = mpsc::channel(1);
        let thread = std::thread::spawn(move || {
            let _told = TellEnd(events);
            std::panic::resume_unwind(Box::new("a test breaks it off"));
        });
        assert!(matches!(waiting.blocking_recv(), Some(Event::StageEnded)));
        assert!(thread.join().is_err());
    }
}
