//! Sends a heartbeat every ten seconds: the latest state, never queued.
//!
//! A task of its own over a connection of its own, so that neither a slow disk nor a large result delays it. What
//! to say is published by the main loop; what is answered goes back to it as an event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundcrew_protocol::wire::Heartbeat;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::client::Orchestrator;
use crate::control::core::Event;
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
        let mut beat = interval(self.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                // News of a claim, a stage or a directive need not wait; more than one a second would be noise.
                () = news(&mut self.latest, &said) => sleep(NEWS_PAUSE).await,
            }
            let Some(heartbeat) = self.latest.borrow_and_update().clone() else {
                continue;
            };
            said = Some(heartbeat.clone());
            let event = send(&self.orchestrator, self.complete(heartbeat)).await;
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

/// Waits for something to say that differs from what was said last in more than its time.
async fn news(latest: &mut watch::Receiver<Option<Heartbeat>>, said: &Option<Heartbeat>) {
    let facts = |heartbeat: &Heartbeat| {
        (
            heartbeat.claim,
            heartbeat.stage.clone(),
            heartbeat.attempt,
            heartbeat.phase.clone(),
            heartbeat.directives.clone(),
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
            if now.4.is_empty() && (&now.0, &now.1, &now.2, &now.3) == (&told.0, &told.1, &told.2, &told.3));
        if now.is_some() && now != told && !only_heard {
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
            events: mpsc::channel(1).0,
        };
        let heartbeat = Heartbeat {
            claim: ClaimNumber(1),
            stage: None,
            attempt: Attempt(0),
            phase: Phase::Running,
            activity: String::new(),
            drain: String::new(),
            directives: Vec::new(),
            home_failed: false,
            wall: WallMs(0),
        };
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
