//! Settings of the stage GPU (`[stage.gpu]`): the diagnosis that is asked for, and what a GPU may have behind it.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::part::{Field, one_of};
use crate::text_enum::text_enum;

const KEYS: [&str; 9] = [
    "diag",
    "temperature_max",
    "ecc_corrected_warn_from",
    "remapped_rows_max",
    "retired_pages_max",
    "nvlinks_min",
    "infiniband_ports_min",
    "infiniband_rate_min_gbps",
    "infiniband_lanes_min",
];
const DIAGS: [&str; 5] = ["none", "quick", "medium", "long", "extended"];
/// No GPU works that is hotter.
const TEMPERATURE_MAX: f64 = 150.0;
/// More links or ports than any machine has.
const LINKS_MAX: u32 = 1024;
/// More than any link carries.
const GBPS_MAX: f64 = 1e6;
/// InfiniBand has links of 1, 2, 4, 8 and 12 lanes.
const LANES_MAX: u32 = 12;
/// More than any of them counts.
const COUNT_MAX: u32 = 1_000_000_000;

text_enum! {
    /// How far `dcgmi diag` goes: its levels 1 to 4. A GPU on which it put no load is inconclusive. Without one the GPUs bear no load, and the profile must say so.
    GpuDiag {
        /// No load.
        None = "none",
        /// Level 1: seconds, only what is installed. It is no load, and each GPU is inconclusive.
        Quick = "quick",
        /// Level 2: two minutes, with transfers over PCIe.
        Medium = "medium",
        /// Level 3: half an hour, with load on memory and cores.
        Long = "long",
        /// Level 4: more than an hour.
        Extended = "extended",
    }
}

impl GpuDiag {
    /// The level of `dcgmi diag -r`; `None` without one.
    pub fn level(&self) -> Option<u8> {
        match self {
            GpuDiag::None | GpuDiag::Unknown(_) => None,
            GpuDiag::Quick => Some(1),
            GpuDiag::Medium => Some(2),
            GpuDiag::Long => Some(3),
            GpuDiag::Extended => Some(4),
        }
    }
}

/// Settings of the stage GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct GpuSettings {
    /// The diagnosis.
    pub diag: GpuDiag,
    /// °C over which a GPU fails.
    pub temperature_max: Option<f64>,
    /// Errors that a GPU corrected since its driver was loaded: from so many on they warn.
    pub ecc_corrected_warn_from: u32,
    /// Rows of memory that were replaced because of an error that nothing corrected; more fail.
    pub remapped_rows_max: u32,
    /// Pages of memory that were retired for double bit errors; more fail.
    pub retired_pages_max: u32,
    /// How many links of NVLink must be active on each GPU.
    pub nvlinks_min: Option<u32>,
    /// How many InfiniBand ports must have a link.
    pub infiniband_ports_min: Option<u32>,
    /// Gb/s that every InfiniBand link must have negotiated.
    pub infiniband_rate_min_gbps: Option<f64>,
    /// Lanes that every InfiniBand link must have negotiated; where nothing is written, fewer than 4 warn.
    pub infiniband_lanes_min: Option<u32>,
}

impl Default for GpuSettings {
    fn default() -> Self {
        GpuSettings {
            diag: GpuDiag::Medium,
            temperature_max: None,
            ecc_corrected_warn_from: 1,
            remapped_rows_max: 0,
            retired_pages_max: 0,
            nvlinks_min: None,
            infiniband_ports_min: None,
            infiniband_rate_min_gbps: None,
            infiniband_lanes_min: None,
        }
    }
}

/// Reads `[stage.gpu]`.
pub(super) fn gpu(field: Field<'_>) -> Result<GpuSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = GpuSettings::default();
    let count = |key: &str, least: u32, by_default: u32| -> Result<u32, BadProfile> {
        Ok(part.optional(key, |field| field.whole(least..=COUNT_MAX))?.unwrap_or(by_default))
    };
    Ok(GpuSettings {
        diag: part.optional("diag", diag)?.unwrap_or(default.diag),
        temperature_max: part.optional("temperature_max", |field| field.number(0.0..=TEMPERATURE_MAX))?,
        ecc_corrected_warn_from: count("ecc_corrected_warn_from", 1, default.ecc_corrected_warn_from)?,
        remapped_rows_max: count("remapped_rows_max", 0, default.remapped_rows_max)?,
        retired_pages_max: count("retired_pages_max", 0, default.retired_pages_max)?,
        nvlinks_min: part.optional("nvlinks_min", |field| field.whole(1..=LINKS_MAX))?,
        infiniband_ports_min: part.optional("infiniband_ports_min", |field| field.whole(1..=LINKS_MAX))?,
        infiniband_rate_min_gbps: part
            .optional("infiniband_rate_min_gbps", |field| field.number(0.0..=GBPS_MAX))?,
        infiniband_lanes_min: part.optional("infiniband_lanes_min", |field| field.whole(1..=LANES_MAX))?,
    })
}

fn diag(field: Field<'_>) -> Result<GpuDiag, BadProfile> {
    let expected = format!("one of {}", DIAGS.join(", "));
    match GpuDiag::from(field.raw_text(&expected)?.to_owned()) {
        GpuDiag::Unknown(word) => Err(field.refuse(&one_of(&word, &DIAGS))),
        known @ (GpuDiag::None | GpuDiag::Quick | GpuDiag::Medium | GpuDiag::Long | GpuDiag::Extended) => {
            Ok(known)
        }
    }
}
