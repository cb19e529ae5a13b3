//! Whether what a file says still holds: a pure function of the file and of who looks at it.

use serde::{Deserialize, Serialize};

use super::AgentInfo;
use crate::limits::{FRESH_MS, HEARTBEAT_INTERVAL_MS, SKEW_SHOWN_MS};
use crate::time::WallMs;

/// What the one who looks knows of the time and of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The wall clock.
    pub wall: WallMs,
    /// Milliseconds since the machine booted.
    pub up_ms: Option<u64>,
    /// The boot, `boot_id:pid1_start`; empty where it cannot be read.
    pub epoch: String,
    /// Whether the process that the file names lives; `None` where nobody can tell.
    pub lives: Option<bool>,
}

/// Whether a file still holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Staleness {
    /// It speaks of an end, which stays true.
    Final,
    /// It was written within three heartbeats.
    Fresh {
        /// How long ago, in milliseconds.
        age_ms: u64,
    },
    /// Nobody should rely on it.
    Stale {
        /// How long ago it was written, in milliseconds, where that can be told.
        age_ms: Option<u64>,
        /// Why, in one sentence.
        why: String,
    },
}

/// Judges a file. Time since boot is believed before the wall clock, since nobody sets it.
pub fn staleness(info: &AgentInfo, clocks: &Clocks) -> Staleness {
    if info.phase.as_ref().is_some_and(super::InfoPhase::is_terminal) {
        return Staleness::Final;
    }
    let Some(last_seen) = info.last_seen else {
        return Staleness::Stale { age_ms: None, why: "it does not say when it was written".to_owned() };
    };
    let wall_age_ms = clocks.wall.0.saturating_sub(last_seen.0);
    let boot = |epoch: &str| epoch.split(':').next().unwrap_or_default().to_owned();
    let (theirs, ours) = (boot(info.epoch.as_deref().unwrap_or_default()), boot(&clocks.epoch));
    if !theirs.is_empty() && !ours.is_empty() && theirs != ours {
        let age_ms = u64::try_from(wall_age_ms).ok();
        return Staleness::Stale { age_ms, why: "it was written under another boot of a machine".to_owned() };
    }
    let same_boot = !ours.is_empty() && theirs == ours;
    let up = if same_boot { info.last_seen_up_ms.zip(clocks.up_ms) } else { None };
    let age_ms = match up {
        Some((then_ms, now_ms)) => now_ms.saturating_sub(then_ms),
        None if wall_age_ms < -SKEW_SHOWN_MS => {
            let why = format!("its time lies {} s ahead of this clock", -wall_age_ms / 1000);
            return Staleness::Stale { age_ms: None, why };
        }
        None => u64::try_from(wall_age_ms).unwrap_or(0),
    };
    if info.epoch.as_deref() == Some(&clocks.epoch) && clocks.lives == Some(false) {
        let process = info.pid.map(|pid| format!(" {pid}")).unwrap_or_default();
        let why = format!("its process{process} is gone and did not say so");
        return Staleness::Stale { age_ms: Some(age_ms), why };
    }
    if age_ms > FRESH_MS {
        let every_s = HEARTBEAT_INTERVAL_MS / 1000;
        let why =
            format!("it was written {} s ago, expected: every {every_s} s while it runs", age_ms / 1000);
        return Staleness::Stale { age_ms: Some(age_ms), why };
    }
    Staleness::Fresh { age_ms }
}
