//! Settings of the stage Storage (`[stage.storage]`): how disks are read, what they must do, and the one file that may be written;
//! or that the disks of `[write]` are written over.

use serde::{Deserialize, Serialize};

use super::cpu_stress::LOAD_MS_MIN;
use super::parse::{NUMBER_MAX, SPAN_MS_MAX};
use super::part::{Field, Part};
use super::{BadProfile, Profile, WriteAllowance};
use crate::stage::Stage;
use crate::time::span;

/// What a destructive stage does not read: it writes over disks, and does nothing else.
const READING_KEYS: [&str; 9] = [
    "sequential",
    "random",
    "full_surface",
    "sequential_min_mb_s",
    "sequential_p99_max_ms",
    "random_min_iops",
    "random_p99_max_ms",
    "write_folder",
    "write_mib",
];
/// What is read by a destructive stage alone.
const WRITING_KEYS: [&str; 3] = ["overwrite_mib", "write_min_mb_s", "write_p99_max_ms"];
/// Most of a disk that is written over where not all of it is: an exabyte.
const OVERWRITE_MIB_MAX: u32 = u32::MAX;
/// Greatest file that is written: a test of a disk's writing takes no more.
const WRITE_MIB_MAX: u32 = 1 << 20;
/// Size of the file in MiB where the profile gives none.
const WRITE_MIB: u64 = 256;
/// Longest path of a folder.
const PATH_BYTES_MAX: usize = 1024;

/// Settings of the stage Storage. Disks are only read, unless it is destructive.
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
    /// The disks of `[write]` are written over and read back, and nothing else is done. Only where the attempt has the
    /// operator's override for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub destructive: bool,
    /// MiB from its beginning on that are written over on each disk; absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrite_mib: Option<u32>,
    /// MB/s (10^6 bytes) under which writing fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_min_mb_s: Option<f64>,
    /// Milliseconds that 99 of 100 writes must end within.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_p99_max_ms: Option<f64>,
    /// What may be written over, as an agent is told it. In a profile it stands in `[write]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowance: Option<WriteAllowance>,
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
            destructive: false,
            overwrite_mib: None,
            write_min_mb_s: None,
            write_p99_max_ms: None,
            allowance: None,
        }
    }
}

/// Reads `[stage.storage]`.
pub(super) fn storage(field: Field<'_>) -> Result<StorageSettings, BadProfile> {
    let keys = [&READING_KEYS[..], &["destructive"], &WRITING_KEYS].concat();
    let part = field.table(&keys)?;
    let default = StorageSettings::default();
    let destructive = part.optional("destructive", |field| field.flag())?.unwrap_or_default();
    let (unread, word): (&[&str], _) = match destructive {
        true => (
            &READING_KEYS,
            "none beside destructive = true: such a stage writes over disks and does nothing else",
        ),
        false => (&WRITING_KEYS, "destructive = true beside it"),
    };
    if let Some(key) = unread.iter().find(|key| part.field(key).is_some()) {
        return Err(part.refuse_at(key, "a setting", word));
    }
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
        destructive,
        overwrite_mib: part.optional("overwrite_mib", |field| field.whole(1..=OVERWRITE_MIB_MAX))?,
        write_min_mb_s: bound("write_min_mb_s")?,
        write_p99_max_ms: bound("write_p99_max_ms")?,
        allowance: None,
    })
}

impl Profile {
    /// The disks that a destructive stage lacks are a mistake of the profile's, and no disk at all would pass for all of them.
    pub(super) fn destructive_without_disks(&self) -> Option<&Stage> {
        let is_destructive = |storage: &StorageSettings| storage.destructive;
        let mut stages = self.stages.iter().filter(|spec| spec.storage.as_ref().is_some_and(is_destructive));
        stages.next().map(|spec| &spec.name).filter(|_| self.write.disks.is_empty())
    }
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
