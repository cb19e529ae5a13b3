//! Sends a heartbeat every ten seconds: the latest state, never queued. Where one is refused by what only an operator can
//! mend, the next one follows after five minutes.
//!
//! A task of its own over a connection of its own, so that neither a slow disk nor a large result delays it. What
//! to say is published by the main loop; what is answered goes back to it as an event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundcrew_protocol::limits::SLOW_RETRY_MS;
use groundcrew_protocol::wire::Heartbeat;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::client::Orchestrator;
use crate::control::core::{Event, Failure};
use crate::control::failure::failure_of;
use crate::io_thread::HomeHealth;
use crate::stamp::wall;

/// What the agent is busy with, for people; written by the stage's thread.
#[derive(Debug, Clone, Default)]
pub struct Activity(Arc<Mutex<String>>);

/// What a heartbeat says of the activity, in characters, so that it stays under the 256 bytes of the wire.
const ACTIVITY_CHARS_MAX: usize = 60;

impl Activity {
    /// Says something else.
    pub fn set(&self, text: &str) {
        let text = text.chars().take(ACTIVITY_CHARS_MAX).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// What was last said.
    pub fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What heartbeats are made with.
pub struct Beats {
    /// The connection.
    pub orchestrator: Arc<Orchestrator>,
    /// What to say; none while there is no claim.
    pub latest: watch::Receiver<Option<Heartbeat>>,
    /// What the agent is busy with.
    pub activity: Activity,
    /// Whether the home can be relied on.
    pub health: HomeHealth,
    /// Time between two.
    pub interval: Duration,
    /// Takes the answers.
    pub events: mpsc::Sender<Event>,
}

impl Beats {
    /// Sends heartbeats until the main loop has ended.
    pub async fn run(mut self) {
        let mut said: Option<Heartbeat> = None;
        let mut pause = self.interval;
        let mut beat = interval(self.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                // News of a claim, a stage or a directive need not wait; more than one a second would be noise.
                () = news(&mut self.latest, &said, pause > self.interval) => sleep(NEWS_PAUSE).await,
            }
            let Some(heartbeat) = self.latest.borrow_and_update().clone() else {
                continue;
            };
            said = Some(heartbeat.clone());
            let event = send(&self.orchestrator, self.complete(heartbeat)).await;
            let next = pause_after(&event, self.interval);
            if next != pause || next > self.interval {
                pause = next;
                beat.reset_after(pause);
            }
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    fn complete(&self, heartbeat: Heartbeat) -> Heartbeat {
        let activity = if heartbeat.activity.is_empty() { self.activity.get() } else { heartbeat.activity };
        let home_failed = self.health.failure().is_some();
        Heartbeat { activity, home_failed, wall: wall(), ..heartbeat }
    }
}

/// Pause between two heartbeats that carry news.
const NEWS_PAUSE: Duration = Duration::from_millis(500);

/// How long until the next one: what only an operator can mend is asked again every five minutes.
fn pause_after(event: &Event, interval: Duration) -> Duration {
    let refused = matches!(event, Event::Heartbeat { answered: Err(Failure::Slow(_)), .. });
    if refused { Duration::from_millis(SLOW_RETRY_MS) } else { interval }
}

/// Waits for something to say that differs from what was said last in more than its time. Where the last one was
/// refused (`refused`), only another claim is: it shows that the orchestrator answers again.
async fn news(latest: &mut watch::Receiver<Option<Heartbeat>>, said: &Option<Heartbeat>, refused: bool) {
    let facts = |heartbeat: &Heartbeat| {
        (
            heartbeat.claim,
            heartbeat.stage.clone(),
            heartbeat.attempt,
            heartbeat.phase.clone(),
            heartbeat.directives.clone(),
            heartbeat.shutdown.is_some(),
        )
    };
    loop {
        if latest.changed().await.is_err() {
            // The main loop has ended; the next tick's event says so.
            return std::future::pending().await;
        }
        let now = latest.borrow().as_ref().map(facts);
        let told = said.as_ref().map(facts);
        // Reports that were heard and are gone again are no news.
        let only_heard = matches!((&now, &told), (Some(now), Some(told))
            if now.4.is_empty() && (&now.0, &now.1, &now.2, &now.3, now.5) == (&told.0, &told.1, &told.2, &told.3, told.5));
        let same_claim = now.as_ref().map(|now| now.0) == told.as_ref().map(|told| told.0);
        if now.is_some() && now != told && !only_heard && !(refused && same_claim) {
            return;
        }
    }
}

/// Sends one heartbeat; the answer as an event.
pub async fn send(orchestrator: &Orchestrator, heartbeat: Heartbeat) -> Event {
    let answered = orchestrator.heartbeat(&heartbeat).await;
    Event::Heartbeat {
        claim: heartbeat.claim,
        answered: answered.map(Box::new).map_err(|error| failure_of(&error)),
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_client::PinSet;
    use groundcrew_protocol::ids::{Attempt, ClaimNumber};
    use groundcrew_protocol::time::WallMs;
    use groundcrew_protocol::wire::Phase;

    use super::*;
    use crate::control::memory::Memory;
    use crate::io_thread::IoThread;

    fn heartbeat(claim: u64) -> Heartbeat {
        Heartbeat {
            claim: ClaimNumber(claim),
            stage: None,
            attempt: Attempt(0),
            phase: Phase::Running,
            activity: String::new(),
            drain: String::new(),
            drains: Vec::new(),
            drain_max_age_ms: None,
            directives: Vec::new(),
            home_failed: false,
            pins_known: Vec::new(),
            shutdown: None,
            wall: WallMs(0),
        }
    }

    #[tokio::test]
    async fn a_heartbeat_that_only_an_operator_can_mend_is_asked_again_in_five_minutes() {
        let interval = Duration::from_secs(10);
        let after = |answered| pause_after(&Event::Heartbeat { claim: ClaimNumber(1), answered }, interval);
        let five_minutes = Duration::from_secs(300);
        assert_eq!(after(Err(Failure::Slow("404".into()))), five_minutes);
        assert_eq!(after(Err(Failure::Soon("503".into()))), interval);
        assert_eq!(after(Ok(Box::default())), interval);

        // Meanwhile another phase is no news, another claim is.
        let (latest, mut heard) = watch::channel(Some(heartbeat(1)));
        let said = Some(heartbeat(1));
        latest.send_replace(Some(Heartbeat { phase: Phase::Holding, ..heartbeat(1) }));
        let mut waits = Box::pin(news(&mut heard, &said, true));
        assert!(asked_once(waits.as_mut()).await.is_none());
        latest.send_replace(Some(heartbeat(2)));
        waits.await;
        latest.send_replace(Some(Heartbeat { phase: Phase::Holding, ..heartbeat(1) }));
        news(&mut heard, &said, false).await;
    }

    /// What a future says when it is asked once.
    async fn asked_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn every_heartbeat_says_that_the_home_failed_once_a_write_did() {
        let memory = Memory::new("r-1".parse().unwrap(), [7; 32]);
        let pins = PinSet::new(Vec::new());
        let url = "https://127.0.0.1:1".parse().unwrap();
        let io = IoThread::start(HomeHealth::default()).unwrap();
        let beats = Beats {
            orchestrator: Arc::new(Orchestrator::new(url, pins, None, memory.run.clone())),
            latest: watch::channel(None).1,
            activity: Activity::default(),
            health: io.health().clone(),
            interval: Duration::from_secs(10),
            events: mpsc::channel(1).0,
        };
        let heartbeat = heartbeat(1);
        let home = tempfile::tempdir().unwrap();
        let store = |path: &std::path::Path| {
            let (memory, path) = (memory.clone(), path.to_owned());
            io.run("writing run.json", move || memory.store(&path))
        };
        store(home.path()).await.unwrap();
        assert!(!beats.complete(heartbeat.clone()).home_failed);
        store(&home.path().join("removed")).await.unwrap_err();
        assert!(beats.complete(heartbeat.clone()).home_failed);
        // It stays so: what was kept meanwhile may live in memory only.
        store(home.path()).await.unwrap();
        assert!(beats.complete(heartbeat).home_failed);
    }
}
