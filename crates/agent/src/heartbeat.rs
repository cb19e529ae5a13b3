//! Sends a heartbeat every ten seconds: the latest state, never queued.
//!
//! A task of its own over a connection of its own, so that neither a slow disk nor a large result delays it. What
//! to say is published by the main loop; what is answered goes back to it as an event.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use groundcrew_protocol::wire::Heartbeat;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

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
    pub async fn run(self) {
        let mut beat = interval(self.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let Some(heartbeat) = self.latest.borrow().clone() else {
                continue;
            };
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

/// Sends one heartbeat; the answer as an event.
pub async fn send(orchestrator: &Orchestrator, heartbeat: Heartbeat) -> Event {
    let answered = orchestrator.heartbeat(&heartbeat).await;
    Event::Heartbeat {
        claim: heartbeat.claim,
        answered: answered.map(Box::new).map_err(|error| failure_of(&error)),
    }
}
