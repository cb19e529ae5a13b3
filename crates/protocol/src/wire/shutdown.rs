//! What an agent says of its own end, where that is in order.

use serde::{Deserialize, Serialize};

use super::StageAttempt;
use crate::ids::RandomId;

/// An agent ends because it was asked to. One that crashes says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shutdown {
    /// The attempt that it ends before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off: Option<StageAttempt>,
    /// True where a drain holds the node: nothing was to start.
    #[serde(default)]
    pub drained: bool,
    /// True where the drain's marker says explicitly that the fleet-wide notice is left out.
    #[serde(default)]
    pub suppress_notification: bool,
}

/// The end of an agent of this home of which no heartbeat is known to have arrived; the next claim says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unheard {
    /// Which process that was: where its heartbeats arrived after all, nothing is told again.
    pub session: RandomId,
    /// What they were to say.
    pub said: Shutdown,
}
