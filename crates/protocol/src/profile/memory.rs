//! Settings of the stage Memory (`[stage.memory]`): how much is tested, how, and for how long.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::cpu_stress::{LOAD_MS_MIN, WORKERS_MAX};
use super::parse::{SPAN_MS_MAX, percent};
use super::part::{Field, one_of};
use crate::time::span;

const KEYS: [&str; 6] =
    ["duration", "workers", "method", "reserve_percent", "size_mib_max", "tested_percent_min"];
/// stress-ng's methods for memory that compare what they read with what they wrote. The others (`read64`, `write64` and their
/// like) only move it, and end well on memory that holds nothing.
pub const MEMORY_METHODS: [&str; 32] = [
    "all",
    "cache-lines",
    "cache-stripe",
    "checkerboard",
    "flip",
    "fwdrev",
    "galpat-0",
    "galpat-1",
    "gray",
    "grayflip",
    "inc-nybble",
    "incdec",
    "lfsr32",
    "modulo-x",
    "move-inv",
    "mscan",
    "prime-0",
    "prime-1",
    "prime-gray-0",
    "prime-gray-1",
    "prime-incdec",
    "rand-set",
    "rand-sum",
    "ror",
    "rowhammer",
    "swap",
    "walk-0a",
    "walk-0d",
    "walk-1a",
    "walk-1d",
    "wrrd128nt",
    "zero-one",
];
/// The agent tests no less.
const SIZE_MIB_MIN: u32 = 16;
/// A petabyte: more than any machine has.
const SIZE_MIB_MAX: u32 = 1 << 30;

/// Settings of the stage Memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MemorySettings {
    /// How long the load lasts.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub duration: u64,
    /// Number of workers, who share the memory; 0 is one for each CPU that is online.
    pub workers: u32,
    /// stress-ng's method for memory; empty is its own choice (all of them in turn).
    pub method: String,
    /// Share of the machine's memory, in percent, that is left to everybody else, of what is available.
    pub reserve_percent: f64,
    /// No more than this is tested, in MiB.
    pub size_mib_max: Option<u64>,
    /// Share of the machine's memory, in percent, under which what was tested fails. Under half of it warns.
    pub tested_percent_min: Option<f64>,
}

impl Default for MemorySettings {
    fn default() -> Self {
        MemorySettings {
            duration: 60_000,
            workers: 0,
            method: String::new(),
            reserve_percent: 5.0,
            size_mib_max: None,
            tested_percent_min: None,
        }
    }
}

/// Reads `[stage.memory]`.
pub(super) fn memory(field: Field<'_>) -> Result<MemorySettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = MemorySettings::default();
    Ok(MemorySettings {
        duration: part
            .optional("duration", |field| field.span_ms(LOAD_MS_MIN..=SPAN_MS_MAX))?
            .unwrap_or(default.duration),
        workers: part.optional("workers", |field| field.whole(0..=WORKERS_MAX))?.unwrap_or(default.workers),
        method: part.optional("method", method)?.unwrap_or_default(),
        reserve_percent: part.optional("reserve_percent", percent)?.unwrap_or(default.reserve_percent),
        size_mib_max: part.optional("size_mib_max", size_mib)?,
        tested_percent_min: part.optional("tested_percent_min", percent)?,
    })
}

/// How much memory is tested at most. (Less than the least of it is no test.)
pub(super) fn size_mib(field: Field<'_>) -> Result<u64, BadProfile> {
    field.whole(SIZE_MIB_MIN..=SIZE_MIB_MAX).map(u64::from)
}

fn method(field: Field<'_>) -> Result<String, BadProfile> {
    let expected = format!("one of {}", MEMORY_METHODS.join(", "));
    match field.raw_text(&expected)? {
        "" => Ok(String::new()),
        word if MEMORY_METHODS.contains(&word) => Ok(word.to_owned()),
        word => {
            Err(field.refuse(&format!("{}: those compare what they read", one_of(word, &MEMORY_METHODS))))
        }
    }
}
