//! Performs what the control loop decides about drains. The watcher's thread does the work; nothing here waits for a disk.

use std::path::Path;

use groundcrew_durable::epoch;
use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::DirectiveId;

use super::Agent;
use crate::control::core::{Event, Facts};
use crate::drain::{Change, Marker, Say, Watcher};
use crate::settings::Settings;

/// Starts the watcher of this agent's marker.
pub(super) async fn watch(settings: &Settings, facts: &Facts, say: Say) -> std::io::Result<Watcher> {
    let marker = Marker {
        home: settings.home.clone(),
        boot_id: epoch::boot_id(Path::new(epoch::PROC)).unwrap_or_default(),
        epoch: facts.boot_epoch.clone(),
        max_age: settings.drain_max_age,
    };
    Watcher::start(marker, say).await
}

impl Agent {
    /// Has the marker read for a stage that is about to start.
    pub(super) fn look_for_drain(&self, look: u64) {
        // Asked here and not in the task: after what was ordered before it.
        let (looked, events) = (self.drain.look(), self.events.clone());
        tokio::spawn(async move {
            let sight = looked.await;
            // It fails only where the loop has ended.
            let _ended_loop = events.send(Event::Looked { look, sight }).await;
        });
    }

    /// Has the marker hold a drain of the orchestrator's, or hold it no more.
    pub(super) fn change_drain(&self, order: Option<DirectiveId>, drain: DrainOrder, begins: bool) {
        let change = match begins {
            true => Change::Begin { principal: drain.principal(), quiet: drain.suppress_notification },
            false => Change::Cancel { principal: Some(drain.principal()) },
        };
        let (changed, events) = (self.drain.change(change), self.events.clone());
        tokio::spawn(async move {
            let done = changed.await;
            let _ended_loop = events.send(Event::DrainChanged { order, done }).await;
        });
    }
}
