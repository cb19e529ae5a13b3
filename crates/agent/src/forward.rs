//! Sends what the spools hold, on a connection of its own, for as long as the agent lives.
//!
//! ```text
//!   draining ──nothing left──> waiting for lines, or for the open chunk's age
//!      │ ^                          │
//!      │ └──────────────────────────┘
//!      ├──failed──> pausing (2 s to 30 s; 5 min for what an operator must mend)
//!      └──old claim──> waiting for another claim
//! ```
//!
//! The disk is touched on the I/O thread alone. A second task has the spools synced every two seconds while
//! there is something to sync, also while nothing can be sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use groundcrew_client::Error;
use groundcrew_protocol::ids::ClaimNumber;
use groundcrew_protocol::wire::{LogLevel, StreamAnswer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::client::Orchestrator;
use crate::console::Console;
use crate::io_thread::{IoError, IoThread};
use crate::spool::{Answer, Message, Spool, SpoolStatus};

/// A power cut may cost this much ("Where durability lives").
const SYNC_EVERY: Duration = Duration::from_millis(2_000);

/// Who carries a message to the orchestrator.
pub trait Courier: Send + Sync + 'static {
    /// Sends the body of a log or sensor call, once.
    fn send(
        &self,
        kind: crate::spool::Kind,
        body: Bytes,
    ) -> impl Future<Output = Result<StreamAnswer, Error>> + Send;
}

impl Courier for Orchestrator {
    async fn send(&self, kind: crate::spool::Kind, body: Bytes) -> Result<StreamAnswer, Error> {
        self.stream(kind.as_str(), body).await
    }
}

/// What the forwarder says of itself. Counts are of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardStatus {
    /// Messages that were taken.
    pub sent: u64,
    /// Messages that the orchestrator will never take.
    pub refused: u64,
    /// What went wrong last; empty once something was sent after it.
    pub last_error: String,
    /// What is waited for, where nothing is sent though something is there.
    pub waits_for: String,
}

/// A running forwarder. Dropping it ends its tasks; what was not sent stays in the spools.
#[derive(Debug)]
pub struct Forwarder {
    spools: [Spool; 2],
    status: Arc<Mutex<ForwardStatus>>,
    console: Console,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Forwarder {
    /// Starts sending: nothing before `claim` is above 0. Ends when `cancel` is cancelled.
    pub fn start(
        spools: [Spool; 2],
        io: IoThread,
        courier: impl Courier,
        claim: watch::Receiver<ClaimNumber>,
        cancel: CancellationToken,
        console: Console,
    ) -> Forwarder {
        Self::start_with(spools, io, courier, claim, cancel, console, Backoff::default())
    }

    /// [`start`](Self::start) with pauses of one's own.
    pub fn start_with(
        spools: [Spool; 2],
        io: IoThread,
        courier: impl Courier,
        claim: watch::Receiver<ClaimNumber>,
        cancel: CancellationToken,
        console: Console,
        backoff: Backoff,
    ) -> Forwarder {
        let cancel = cancel.child_token();
        let status: Arc<Mutex<ForwardStatus>> = Arc::default();
        let (flushes, asked) = mpsc::channel(1);
        let sync = run_sync(spools.clone(), io.clone(), console.clone(), cancel.clone());
        let sender = Sender {
            spools: spools.clone(),
            io,
            courier,
            claim,
            status: status.clone(),
            console: console.clone(),
            backoff,
            asked,
            flushing: None,
        };
        let tasks = vec![tokio::spawn(sync), tokio::spawn(sender.run(cancel.clone()))];
        Forwarder { spools, status, console, flushes, cancel, tasks }
    }

    /// What it says of itself.
    pub fn status(&self) -> ForwardStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the spools hold: logs, then readings.
    pub fn spools(&self) -> [SpoolStatus; 2] {
        self.spools.each_ref().map(Spool::status)
    }

    /// Closes the present streams and waits until everything in them is acknowledged, at most for `limit`. True
    /// where it is. What comes meanwhile goes into new streams and is not waited for.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, is_done) = oneshot::channel();
        let flush = async { self.flushes.send(done).await.is_ok() && is_done.await.is_ok() };
        timeout(limit, flush).await.unwrap_or(false)
    }

    /// Ends the tasks and waits for them. What was not sent stays in the spools.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                self.console.say(LogLevel::Error, &format!("a task that sends logs ended badly: {error}"));
            }
        }
    }
}

/// Syncs whatever was appended, while there is something, and once more at the end.
async fn run_sync(spools: [Spool; 2], io: IoThread, console: Console, cancel: CancellationToken) {
    let mut is_last = false;
    while !is_last {
        is_last = timeout(SYNC_EVERY, cancel.cancelled()).await.is_ok();
        for spool in spools.iter().filter(|spool| spool.status().unsynced) {
            let spool = spool.clone();
            if let Err(error) = io.run("syncing a spool", move || spool.sync()).await {
                let why = crate::errors::chain(&error);
                console.say(
                    LogLevel::Warn,
                    &format!("a power cut may cost more than two seconds of logs: {why}"),
                );
            }
        }
    }
}

/// Why nothing more is sent for now.
#[derive(Debug, PartialEq, Eq)]
enum Pass {
    Drained,
    Pause(Duration),
    AwaitClaim,
}

/// What an error means for the message that met it.
#[derive(Debug, PartialEq, Eq)]
enum Met {
    Answered(Answer),
    OldClaim,
    Failed,
}

fn meaning(error: &Error) -> Met {
    match (error.status(), error.code()) {
        (Some(409), "other_content") => Met::Answered(Answer::OtherContent),
        (Some(409), _) => Met::OldClaim,
        (Some(400 | 413 | 422), _) => Met::Answered(Answer::Refused(error.to_string())),
        _ => Met::Failed,
    }
}

/// The task that sends.
struct Sender<C> {
    spools: [Spool; 2],
    io: IoThread,
    courier: C,
    claim: watch::Receiver<ClaimNumber>,
    status: Arc<Mutex<ForwardStatus>>,
    console: Console,
    backoff: Backoff,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    flushing: Option<Flush>,
}

/// A flush that is asked for.
struct Flush {
    /// Streams below these are to be sent.
    below: [u64; 2],
    done: oneshot::Sender<()>,
}

impl<C: Courier> Sender<C> {
    async fn run(mut self, cancel: CancellationToken) {
        loop {
            let go_on = tokio::select! {
                () = cancel.cancelled() => return,
                go_on = self.round() => go_on,
            };
            if !go_on {
                return;
            }
        }
    }

    /// Sends what there is, then waits for what comes next. False once nobody can ask for anything any more.
    async fn round(&mut self) -> bool {
        let pass = self.pass().await;
        self.say_waits(match &pass {
            Pass::Drained => "",
            Pass::Pause(_) => "the orchestrator",
            Pass::AwaitClaim => "a claim of this agent's",
        });
        if let Some(flush) = self.flushing.take_if(|flush| is_flushed(&self.spools, &flush.below)) {
            // Who asked may have stopped waiting.
            let _nobody_waits = flush.done.send(());
        }
        let pause = match pass {
            Pass::Drained => None,
            Pass::Pause(pause) => Some(pause),
            Pass::AwaitClaim => Some(self.backoff.slow()),
        };
        tokio::select! {
            () = wait_for_work(&self.spools), if pause.is_none() => true,
            () = sleep(pause.unwrap_or_default()), if pause.is_some() => true,
            changed = self.claim.changed(), if pause.is_some() => changed.is_ok(),
            flush = self.asked.recv() => match flush {
                Some(done) => self.begin_flush(done).await,
                None => false,
            },
        }
    }

    async fn begin_flush(&mut self, done: oneshot::Sender<()>) -> bool {
        let mut below = [0; 2];
        for (spool, below) in self.spools.clone().into_iter().zip(&mut below) {
            let finish = move || Ok::<_, std::convert::Infallible>(spool.finish());
            match self.io.run("closing a spool", finish).await {
                Ok(order) => *below = order,
                Err(error) => {
                    // Who asked learns it from the dropped answer: not everything will be sent.
                    self.say_error(LogLevel::Warn, crate::errors::chain(&error));
                    return true;
                }
            }
        }
        self.flushing = Some(Flush { below, done });
        self.backoff.reset();
        true
    }

    /// Sends message after message, logs first, until there is none or one fails.
    async fn pass(&mut self) -> Pass {
        // A change from here on ends the wait that may follow.
        let claim = *self.claim.borrow_and_update();
        if claim == ClaimNumber(0) {
            return Pass::AwaitClaim;
        }
        for at in 0..self.spools.len() {
            loop {
                let spool = self.spools[at].clone();
                let next = self.io.run("reading a spool", move || spool.next_message(Instant::now())).await;
                let message = match next {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => return self.disk_failed(&error),
                };
                if let Some(pass) = self.send(at, message, claim).await {
                    return pass;
                }
            }
        }
        Pass::Drained
    }

    /// Sends one message; `None` where the next one may follow.
    async fn send(&mut self, at: usize, message: Message, claim: ClaimNumber) -> Option<Pass> {
        let answer = match self.courier.send(message.kind(), message.body(claim)).await {
            // First, repeated or late: the orchestrator has it.
            Ok(_) => Answer::Taken,
            Err(error) => match meaning(&error) {
                Met::Answered(answer) => {
                    let (stream, seq) = (message.stream(), message.seq());
                    let chunk = format!("chunk {seq} of stream {stream} was not taken: {}", error.chain());
                    self.say_error(LogLevel::Warn, chunk);
                    answer
                }
                Met::OldClaim => {
                    let waits = format!("logs wait for a claim after {claim}: {}", error.chain());
                    self.say_error(LogLevel::Info, waits);
                    return Some(Pass::AwaitClaim);
                }
                Met::Failed => {
                    self.say_error(LogLevel::Warn, format!("logs are not sent: {}", error.chain()));
                    return Some(Pass::Pause(self.backoff.after(&error)));
                }
            },
        };
        self.backoff.reset();
        self.count(&answer);
        let spool = self.spools[at].clone();
        let answered =
            self.io.run("remembering what was sent", move || spool.answered(&message, answer)).await;
        match answered {
            Ok(()) => None,
            Err(error) => Some(self.disk_failed(&error)),
        }
    }

    fn disk_failed(&mut self, error: &IoError<groundcrew_durable::Error>) -> Pass {
        self.say_error(LogLevel::Warn, crate::errors::chain(error));
        Pass::Pause(self.backoff.next_pause())
    }

    fn count(&self, answer: &Answer) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Answer::Taken => {
                status.sent += 1;
                status.last_error.clear();
            }
            Answer::Refused(_) => status.refused += 1,
            Answer::OtherContent => {}
        }
    }

    /// Says what went wrong, once for as long as nothing else happens: an outage of an hour is one line.
    fn say_error(&self, level: LogLevel, error: String) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.last_error != error {
            self.console.say(level, &error);
            status.last_error = error;
        }
    }

    fn say_waits(&self, waits_for: &str) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.waits_for.clear();
        status.waits_for.push_str(waits_for);
    }
}

/// True where no stream from before the flush is left.
fn is_flushed(spools: &[Spool; 2], below: &[u64; 2]) -> bool {
    spools.iter().zip(below).all(|(spool, below)| spool.status().oldest.is_none_or(|oldest| oldest >= *below))
}

/// Returns when a chunk was opened or closed, or when the oldest open one is old enough to be sent.
async fn wait_for_work(spools: &[Spool; 2]) {
    let due = spools.iter().filter_map(|spool| spool.status().due).min();
    let old_enough = async {
        match due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = old_enough => {}
        () = spools[0].woken() => {}
        () = spools[1].woken() => {}
    }
}

#[cfg(test)]
mod tests;
