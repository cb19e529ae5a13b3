//! Which nodes operators want to be drained, and which runs' agents that must be compared with.
//!
//! The store keeps what was asked for; the task `drains` reads it each second and leaves here what it means for each
//! node, so that a claim is told at once.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use groundcrew_protocol::drain::DrainOrder;
use groundcrew_protocol::ids::{DrainId, NodeName};

use super::{Live, LiveRun};
use crate::run::decide::renewed_after_ms;

/// Drains that are kept of what one heartbeat names: more than a node can be held by.
pub const DRAINS_SAID_MAX: usize = 64;
/// A comparison that found nothing to do is made again after this, on the clock of listening, or as often as drains are
/// renewed there.
const COMPARED_AGAIN_MS: u64 = 60_000;

/// What each node's agents are to be told.
#[derive(Debug, Default)]
pub struct Wanted {
    nodes: RwLock<HashMap<NodeName, Vec<DrainOrder>>>,
}

impl Wanted {
    /// The drains that are to hold a node now.
    pub fn of(&self, node: &NodeName) -> Vec<DrainOrder> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned().unwrap_or_default()
    }

    /// Takes the place of what was known.
    pub fn replace(&self, nodes: HashMap<NodeName, Vec<DrainOrder>>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

/// What was compared: which drains were wanted, which the agent said, and the run's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    wanted: Vec<DrainId>,
    held: Vec<DrainId>,
    max_age_ms: Option<u64>,
    version: u64,
}

/// A comparison that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Drains that are to hold the run's node.
    pub wanted: Vec<DrainOrder>,
    /// Drains that do, as the agent said.
    pub held: Vec<DrainId>,
    /// The greatest age of its marker, as it said.
    pub max_age_ms: Option<u64>,
    compared: Compared,
    at_ms: u64,
}

impl Live {
    /// The drains of a run's node beside what its agent says of them, where a decision on that may change something.
    /// `None` also while nobody knows what the agent holds: it has not spoken since this start.
    pub fn drains_due(&self, live: &LiveRun) -> Option<Due> {
        let wanted = self.drains.of(&live.node);
        let listened_ms = self.clock.read_ms(Instant::now());
        let state = live.state();
        let said = state.said.as_ref()?;
        let (held, max_age_ms) = (said.drains.clone(), said.drain_max_age_ms);
        if wanted.is_empty() && held.is_empty() && state.drains.is_empty() {
            return None;
        }
        let ids = wanted.iter().map(|order| order.id.clone()).collect();
        let compared = Compared { wanted: ids, held: held.clone(), max_age_ms, version: state.version };
        if let Some((before, at_ms)) = &state.drains_compared
            && *before == compared
            && listened_ms.saturating_sub(*at_ms) < COMPARED_AGAIN_MS.min(renewed_after_ms(max_age_ms))
        {
            return None;
        }
        Some(Due { wanted, held, max_age_ms, compared, at_ms: listened_ms })
    }

    /// Notes that a comparison was decided on.
    pub fn drains_compared(&self, live: &LiveRun, due: Due) {
        live.state().drains_compared = Some((due.compared, due.at_ms));
    }
}
