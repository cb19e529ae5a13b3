//! Settings of the stage CPUStress (`[stage.cpu_stress]`): the load, and what the CPUs must do under it.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::parse::{NUMBER_MAX, SPAN_MS_MAX};
use super::part::Field;
use crate::time::span;

const KEYS: [&str; 6] =
    ["duration", "workers", "method", "rate_min", "throttled_percent_max", "frequency_min_mhz"];
/// Shortest load: stress-ng counts in seconds.
pub(super) const LOAD_MS_MIN: u64 = 1_000;
/// More workers than any machine has CPUs.
pub(super) const WORKERS_MAX: u32 = 4_096;

/// Settings of the stage CPUStress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CpuStressSettings {
    /// How long the load lasts.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub duration: u64,
    /// Number of workers; 0 is one for each CPU that is online.
    pub workers: u32,
    /// stress-ng's CPU method; empty is its own choice (all of them in turn).
    pub method: String,
    /// Bogo operations per second of real time, over all workers, under which the check `rate` fails.
    pub rate_min: Option<f64>,
    /// Share of the time, in percent, that CPUs may be throttled before the check `throttling` fails.
    pub throttled_percent_max: f64,
    /// Frequency in MHz under which the slowest CPU's mean under load fails.
    pub frequency_min_mhz: Option<f64>,
}

impl Default for CpuStressSettings {
    fn default() -> Self {
        CpuStressSettings {
            duration: 60_000,
            workers: 0,
            method: String::new(),
            rate_min: None,
            throttled_percent_max: 5.0,
            frequency_min_mhz: None,
        }
    }
}

/// Reads `[stage.cpu_stress]`.
pub(super) fn cpu_stress(field: Field<'_>) -> Result<CpuStressSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = CpuStressSettings::default();
    Ok(CpuStressSettings {
        duration: part
            .optional("duration", |field| field.span_ms(LOAD_MS_MIN..=SPAN_MS_MAX))?
            .unwrap_or(default.duration),
        workers: part.optional("workers", |field| field.whole(0..=WORKERS_MAX))?.unwrap_or(default.workers),
        method: part.optional("method", method)?.unwrap_or_default(),
        rate_min: part.optional("rate_min", |field| field.number(0.0..=NUMBER_MAX))?,
        throttled_percent_max: part
            .optional("throttled_percent_max", |field| field.number(0.0..=100.0))?
            .unwrap_or(default.throttled_percent_max),
        frequency_min_mhz: part.optional("frequency_min_mhz", |field| field.number(0.0..=1e6))?,
    })
}

/// A method of one of stress-ng's stressors.
pub(super) fn method(field: Field<'_>) -> Result<String, BadProfile> {
    field.text_of("a method of stress-ng: at most 64 of a-z, 0-9, '_' and '-', a letter first", |text| {
        text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
            && text.bytes().next().is_none_or(|first| first.is_ascii_lowercase())
    })
}
