//! Settings of the stage Soak (`[stage.soak]`): how long everything bears its load together, and how much memory.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::cpu_stress::LOAD_MS_MIN;
use super::memory::size_mib;
use super::parse::SPAN_MS_MAX;
use super::part::Field;
use crate::time::span;

const KEYS: [&str; 2] = ["duration", "memory_mib_max"];

/// Settings of the stage Soak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SoakSettings {
    /// How long the loads last.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub duration: u64,
    /// No more memory than this is written and read back, in MiB.
    pub memory_mib_max: Option<u64>,
}

impl Default for SoakSettings {
    fn default() -> Self {
        SoakSettings { duration: 60_000, memory_mib_max: None }
    }
}

/// Reads `[stage.soak]`.
pub(super) fn soak(field: Field<'_>) -> Result<SoakSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let duration = part.optional("duration", |field| field.span_ms(LOAD_MS_MIN..=SPAN_MS_MAX))?;
    Ok(SoakSettings {
        duration: duration.unwrap_or(SoakSettings::default().duration),
        memory_mib_max: part.optional("memory_mib_max", size_mib)?,
    })
}
