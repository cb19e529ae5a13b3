//! A chunk as it is stored: its lines as JSON, packed with zstd, known by the SHA-256 of everything in it.

use groundcrew_protocol::wire::{LogGap, LogLine};
use sha2::{Digest, Sha256};

use super::LogChunk;
use super::admit::Hash;
use crate::store::{StoreError, text};

/// zstd's fastest level: several hundred MB/s on one core, and logs still shrink to a fifth or less.
const ZSTD_LEVEL: i32 = 1;
/// More stages than this in one chunk are not listed: the chunk is then looked at for every stage.
const STAGES_LISTED_MAX: usize = 16;
/// Stands for stages that are not listed.
pub(super) const ANY_STAGE: &str = "*";

/// A chunk ready to be appended.
pub(in crate::store) struct Packed {
    /// The chunk without its lines.
    pub chunk: LogChunk,
    /// How many lines it had.
    pub lines: usize,
    /// Its lines, packed.
    pub frame: Vec<u8>,
    /// Bytes of its lines before that.
    pub json_bytes: usize,
    /// Of lines, gap and closing mark.
    pub sha256: Hash,
    /// `ts` of the first line and of the last.
    pub ts: [String; 2],
    /// JSON list of its stages, or [`ANY_STAGE`].
    pub stages: String,
    /// JSON of its gap.
    pub gap: Option<String>,
}

/// Packs a chunk. Takes about a millisecond for 64 KiB of text, so it has no place on a thread that serves.
pub(super) fn pack(mut chunk: LogChunk) -> Result<Packed, StoreError> {
    let lines = std::mem::take(&mut chunk.lines);
    let json = text::to_json("a chunk of log", &lines)?;
    let gap = chunk.gap.as_ref().map(|gap| text::to_json("a gap", gap)).transpose()?;
    let frame = zstd::bulk::compress(json.as_bytes(), ZSTD_LEVEL)
        .map_err(|error| StoreError::Unreadable { what: "a chunk of log".into(), why: error.to_string() })?;
    let ts_of = |line: Option<&LogLine>| line.map_or(String::new(), |line| line.ts.clone());
    Ok(Packed {
        lines: lines.len(),
        frame,
        json_bytes: json.len(),
        sha256: hash(json.as_bytes(), gap.as_deref(), chunk.closes),
        ts: [ts_of(lines.first()), ts_of(lines.last())],
        stages: stages_of(&lines)?,
        gap,
        chunk,
    })
}

/// The hash that a chunk is known by.
pub(super) fn hash_of(chunk: &LogChunk) -> Result<Hash, StoreError> {
    let json = text::to_json("a chunk of log", &chunk.lines)?;
    let gap = chunk.gap.as_ref().map(|gap| text::to_json("a gap", gap)).transpose()?;
    Ok(hash(json.as_bytes(), gap.as_deref(), chunk.closes))
}

fn stages_of(lines: &[LogLine]) -> Result<String, StoreError> {
    let mut stages = Vec::new();
    for stage in lines.iter().filter_map(|line| line.stage.as_ref()) {
        if !stages.contains(&stage) {
            stages.push(stage);
        }
        if stages.len() > STAGES_LISTED_MAX {
            return Ok(ANY_STAGE.into());
        }
    }
    text::to_json("stages", &stages)
}

/// What tells a chunk from any other. The parts cannot run into each other: JSON holds no zero byte.
fn hash(json: &[u8], gap: Option<&str>, closes: bool) -> Hash {
    let mut hash = Sha256::new();
    hash.update(json);
    hash.update([0]);
    hash.update(gap.unwrap_or_default());
    hash.update([0, u8::from(closes)]);
    hash.finalize().into()
}

/// The lines of a stored chunk.
pub(super) fn unpack(
    frame: &[u8],
    json_bytes: usize,
    gap: Option<&str>,
    closes: bool,
    sha256: &[u8],
) -> Result<Vec<LogLine>, String> {
    let json = zstd::bulk::decompress(frame, json_bytes).map_err(|error| error.to_string())?;
    if hash(&json, gap, closes) != *sha256 {
        return Err("it does not hash to what its row says".into());
    }
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// A gap as its row has it.
pub(super) fn gap_of(json: &str) -> Result<LogGap, StoreError> {
    text::from_json("a gap in a log", json)
}
