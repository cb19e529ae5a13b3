//! Settings of the stage Storage (`[stage.storage]`): how disks are read, what they must do, and the one file that may be written.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::cpu_stress::LOAD_MS_MIN;
use super::parse::{NUMBER_MAX, SPAN_MS_MAX};
use super::part::{Field, Part};
use crate::time::span;

const KEYS: [&str; 10] = [
    "sequential",
    "random",
    "full_surface",
    "sequential_min_mb_s",
    "sequential_p99_max_ms",
    "random_min_iops",
    "random_p99_max_ms",
    "write_folder",
    "write_mib",
    "destructive",
];
/// Greatest file that is written: a test of a disk's writing takes no more.
const WRITE_MIB_MAX: u32 = 1 << 20;
/// Size of the file in MiB where the profile gives none.
const WRITE_MIB: u64 = 256;
/// Longest path of a folder.
const PATH_BYTES_MAX: usize = 1024;

/// Settings of the stage Storage. Disks are only read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct StorageSettings {
    /// How long each disk is read from its beginning on.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub sequential: u64,
    /// How long each disk is read here and there.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub random: u64,
    /// Each disk is read from its beginning to its end, however long that takes.
    pub full_surface: bool,
    /// MB/s (10^6 bytes) under which reading from the beginning on fails.
    pub sequential_min_mb_s: Option<f64>,
    /// Milliseconds that 99 of 100 such reads must end within.
    pub sequential_p99_max_ms: Option<f64>,
    /// Reads per second under which reading here and there fails.
    pub random_min_iops: Option<f64>,
    /// Milliseconds that 99 of 100 such reads must end within.
    pub random_p99_max_ms: Option<f64>,
    /// What may be written; without it disks are only read.
    #[serde(flatten)]
    pub written: Option<WrittenFile>,
}

/// The one file of its own that the stage may write, read back and remove.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WrittenFile {
    /// The folder that it is written in.
    pub write_folder: String,
    /// Its size in MiB.
    pub write_mib: u64,
}

impl Default for StorageSettings {
    fn default() -> Self {
        StorageSettings {
            sequential: 20_000,
            random: 20_000,
            full_surface: false,
            sequential_min_mb_s: None,
            sequential_p99_max_ms: None,
            random_min_iops: None,
            random_p99_max_ms: None,
            written: None,
        }
    }
}

/// Reads `[stage.storage]`.
pub(super) fn storage(field: Field<'_>) -> Result<StorageSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = StorageSettings::default();
    // Whoever asks for it must not believe that it was done.
    part.optional("destructive", |field| match field.flag()? {
        false => Ok(()),
        true => Err(field.refuse("false: this version writes to no disk; name a folder as write_folder")),
    })?;
    let load = |key: &str, by_default: u64| -> Result<u64, BadProfile> {
        Ok(part.optional(key, |field| field.span_ms(LOAD_MS_MIN..=SPAN_MS_MAX))?.unwrap_or(by_default))
    };
    let bound = |key: &str| part.optional(key, |field| field.number(0.0..=NUMBER_MAX));
    Ok(StorageSettings {
        sequential: load("sequential", default.sequential)?,
        random: load("random", default.random)?,
        full_surface: part.optional("full_surface", |field| field.flag())?.unwrap_or_default(),
        sequential_min_mb_s: bound("sequential_min_mb_s")?,
        sequential_p99_max_ms: bound("sequential_p99_max_ms")?,
        random_min_iops: bound("random_min_iops")?,
        random_p99_max_ms: bound("random_p99_max_ms")?,
        written: written(&part)?,
    })
}

fn written(part: &Part<'_>) -> Result<Option<WrittenFile>, BadProfile> {
    let folder = part.optional("write_folder", |field| {
        field.text_of("an absolute path without '..', ':' and control characters", is_plain_folder)
    })?;
    let mib = part.optional("write_mib", |field| field.whole(1..=WRITE_MIB_MAX))?;
    match folder {
        Some(write_folder) => {
            Ok(Some(WrittenFile { write_folder, write_mib: mib.map_or(WRITE_MIB, u64::from) }))
        }
        None if mib.is_some() => {
            Err(part.lacks("write_folder", "the folder of the file that write_mib is the size of"))
        }
        None => Ok(None),
    }
}

/// fio takes a colon for the end of a name.
fn is_plain_folder(text: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && c != ':' && c != '\\';
    text.starts_with('/')
        && text.len() <= PATH_BYTES_MAX
        && text.chars().all(is_plain)
        && !text.split('/').any(|part| part == "..")
}
