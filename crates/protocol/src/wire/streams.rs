//! Log lines and sensor readings: chunks of numbered streams, each stored once.

use serde::{Deserialize, Serialize};

use super::{LogLevel, Taken};
use crate::ids::{ClaimNumber, RandomId};
use crate::stage::Stage;
use crate::time::WallMs;

/// A line of log. `stage` is absent for a framing line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogLine {
    /// RFC 3339 on the agent's wall clock.
    pub ts: String,
    /// How much it matters.
    pub level: LogLevel,
    /// The stage that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The text, without a line end.
    pub text: String,
}

/// A chunk of a log stream, stored once per (run, stream, seq).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogRequest {
    /// The sender's claim.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// The random id of the spool. An agent of protocol 1 sends none, and its lines cannot be told apart when repeated.
    #[serde(default)]
    pub stream: Option<RandomId>,
    /// Counted from 0 within the stream.
    #[serde(default)]
    pub seq: u64,
    /// The lines.
    #[serde(default)]
    pub lines: Vec<LogLine>,
    /// What the spool had to let go just before this chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<LogGap>,
    /// The closing mark: no chunk follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closes: bool,
}

/// Lines or readings that are not there, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogGap {
    /// Chunks that were dropped.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub why: String,
}

/// A reading of a sensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorSample {
    /// `temperature`, `fan`, `power`, `voltage`, `current`, `frequency`.
    pub kind: String,
    /// Which one: chip and label.
    pub key: String,
    /// The value; one that is not finite is not sent.
    pub value: f64,
    /// `°C`, `rpm`, `W`, `V`, `A`, `MHz`.
    pub unit: String,
    /// When, on the agent's wall clock.
    #[serde(default)]
    pub ts: WallMs,
}

/// A batch of readings, stored once per (run, stream, seq).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorRequest {
    /// The sender's claim.
    #[serde(default)]
    pub claim: ClaimNumber,
    /// The random id of the spool.
    #[serde(default)]
    pub stream: Option<RandomId>,
    /// Counted from 0 within the stream.
    #[serde(default)]
    pub seq: u64,
    /// The readings.
    pub samples: Vec<SensorSample>,
    /// What the spool had to let go before these readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<LogGap>,
    /// The closing mark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closes: bool,
}

/// Answer to a log or sensor message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamAnswer {
    /// `first`, or `repeated` where the same chunk was stored before.
    pub taken: Taken,
}
