//! Settings of the stage SMART (`[stage.smart]`): what a disk may have behind it.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::part::{Field, one_of};
use crate::text_enum::text_enum;

const KEYS: [&str; 11] = [
    "self_test",
    "reallocated_sectors_max",
    "reported_uncorrectable_max",
    "pending_sectors_max",
    "offline_uncorrectable_max",
    "grown_defects_max",
    "uncorrected_errors_max",
    "media_errors_max",
    "percentage_used_max",
    "power_on_hours_max",
    "written_tb_max",
];
const SELF_TESTS: [&str; 3] = ["none", "short", "long"];
/// More than any disk counts.
const COUNT_MAX: f64 = 1e15;
/// A disk may say that more than its whole life is used; NVMe counts up to 255.
const PERCENTAGE_USED_MAX: f64 = 255.0;

text_enum! {
    /// The self-test that a disk is asked for.
    SelfTest {
        /// None.
        None = "none",
        /// The short one: some minutes.
        Short = "short",
        /// The whole surface: hours.
        Long = "long",
    }
}

/// Settings of the stage SMART.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SmartSettings {
    /// The self-test that each disk is asked for.
    pub self_test: SelfTest,
    /// ATA: sectors that were replaced (attribute 5).
    pub reallocated_sectors_max: f64,
    /// ATA: errors that no correction mended (attribute 187).
    pub reported_uncorrectable_max: f64,
    /// ATA: sectors that wait to be replaced (attribute 197).
    pub pending_sectors_max: f64,
    /// ATA: sectors that the disk's own scans could not read (attribute 198).
    pub offline_uncorrectable_max: f64,
    /// SAS: defects that came since the disk was made.
    pub grown_defects_max: f64,
    /// SAS: errors of reads, writes and verifies that no correction mended.
    pub uncorrected_errors_max: f64,
    /// NVMe: errors of the media or of its data's integrity.
    pub media_errors_max: f64,
    /// NVMe: how much of its life it may have used, in percent. Over 80 warns.
    pub percentage_used_max: f64,
    /// Hours under power: bounded where the hardware is to be new.
    pub power_on_hours_max: Option<f64>,
    /// TB (10^12 bytes) that were written to it: bounded where the hardware is to be new.
    pub written_tb_max: Option<f64>,
}

impl Default for SmartSettings {
    fn default() -> Self {
        SmartSettings {
            self_test: SelfTest::Short,
            reallocated_sectors_max: 0.0,
            reported_uncorrectable_max: 0.0,
            pending_sectors_max: 0.0,
            offline_uncorrectable_max: 0.0,
            grown_defects_max: 0.0,
            uncorrected_errors_max: 0.0,
            media_errors_max: 0.0,
            percentage_used_max: 100.0,
            power_on_hours_max: None,
            written_tb_max: None,
        }
    }
}

/// Reads `[stage.smart]`.
pub(super) fn smart(field: Field<'_>) -> Result<SmartSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = SmartSettings::default();
    let count = |key: &str, by_default: f64| -> Result<f64, BadProfile> {
        Ok(part.optional(key, |field| field.number(0.0..=COUNT_MAX))?.unwrap_or(by_default))
    };
    Ok(SmartSettings {
        self_test: part.optional("self_test", self_test)?.unwrap_or(default.self_test),
        reallocated_sectors_max: count("reallocated_sectors_max", default.reallocated_sectors_max)?,
        reported_uncorrectable_max: count("reported_uncorrectable_max", default.reported_uncorrectable_max)?,
        pending_sectors_max: count("pending_sectors_max", default.pending_sectors_max)?,
        offline_uncorrectable_max: count("offline_uncorrectable_max", default.offline_uncorrectable_max)?,
        grown_defects_max: count("grown_defects_max", default.grown_defects_max)?,
        uncorrected_errors_max: count("uncorrected_errors_max", default.uncorrected_errors_max)?,
        media_errors_max: count("media_errors_max", default.media_errors_max)?,
        percentage_used_max: part
            .optional("percentage_used_max", |field| field.number(0.0..=PERCENTAGE_USED_MAX))?
            .unwrap_or(default.percentage_used_max),
        power_on_hours_max: part.optional("power_on_hours_max", |field| field.number(0.0..=COUNT_MAX))?,
        written_tb_max: part.optional("written_tb_max", |field| field.number(0.0..=COUNT_MAX))?,
    })
}

fn self_test(field: Field<'_>) -> Result<SelfTest, BadProfile> {
    let expected = format!("one of {}", SELF_TESTS.join(", "));
    match SelfTest::from(field.raw_text(&expected)?.to_owned()) {
        SelfTest::Unknown(word) => Err(field.refuse(&one_of(&word, &SELF_TESTS))),
        known @ (SelfTest::None | SelfTest::Short | SelfTest::Long) => Ok(known),
    }
}
