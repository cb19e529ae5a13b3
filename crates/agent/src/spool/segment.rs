//! One file of records of a stream.

use std::path::{Path, PathBuf};

use groundcrew_durable::records::{EndKind, Options, RecordReader};
use groundcrew_durable::{Error, Result};

use super::chunk::{Tag, read_record};

/// Greatest record: a batch of 2,048 readings, or a line of 8 KiB of control characters, fits several times.
pub(super) const RECORD_BYTES_MAX: u32 = 1 << 20;

/// How record files of spools are written.
pub(super) fn options() -> Options {
    Options { record_bytes_max: RECORD_BYTES_MAX, ..Options::default() }
}

/// What is known of a segment. It holds the chunks `first` up to, but not with, `next`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) first: u64,
    pub(super) next: u64,
    /// On the disk.
    pub(super) bytes: u64,
    /// What lies behind damage in it and cannot be read.
    pub(super) damaged_bytes: u64,
}

pub(super) fn path_of(stream: &Path, number: u32) -> PathBuf {
    stream.join(format!("{number:08}.rec"))
}

/// The number in a segment's name.
pub(super) fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".rec")?;
    (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Reads a segment through; `None` where it holds not one whole record.
pub(super) fn scan(stream: &Path, number: u32) -> Result<Option<Segment>> {
    let path = path_of(stream, number);
    let Some(mut reader) = RecordReader::open(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
    let mut chunks: Option<(u64, u64)> = None;
    while let Some(payload) = reader.next_record()? {
        let Some((_, seq, _)) = read_record(payload) else { continue };
        chunks = Some((chunks.map_or(seq, |(first, _)| first), seq + 1));
    }
    let end = reader.end().expect("the reader gave no further record");
    let damaged_bytes = match end.kind {
        EndKind::Clean | EndKind::Torn => 0,
        EndKind::Corrupt(_) => end.bytes_after,
    };
    let bytes = end.offset + end.bytes_after;
    Ok(chunks.map(|(first, next)| Segment { number, first, next, bytes, damaged_bytes }))
}

/// Where a chunk ends, so that the next one need not be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) number: u32,
    pub(super) seq: u64,
    pub(super) offset: u64,
}

/// The records of one chunk, and where the next one begins.
pub(super) struct Found {
    pub(super) items: Vec<u8>,
    pub(super) gaps: Vec<Vec<u8>>,
    pub(super) hint: Hint,
}

/// Reads the chunk `seq` of a closed part of a segment, from the hint on where it fits.
pub(super) fn read_chunk(path: &Path, number: u32, seq: u64, hint: Option<Hint>) -> Result<Found> {
    let offset = hint.filter(|hint| hint.number == number && hint.seq == seq).map_or(0, |hint| hint.offset);
    let gone = || Error::Io {
        doing: "opening the segment",
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let mut reader = RecordReader::open_at(path, RECORD_BYTES_MAX, offset)?.ok_or_else(gone)?;
    let (mut items, mut gaps) = (Vec::new(), Vec::new());
    let mut behind = reader.offset();
    while let Some(payload) = reader.next_record()? {
        let Some((tag, found, json)) = read_record(payload) else { continue };
        if found > seq {
            break;
        }
        if found == seq {
            match tag {
                Tag::Items => {
                    if !items.is_empty() {
                        items.push(b',');
                    }
                    items.extend_from_slice(json);
                }
                Tag::Gap => gaps.push(json.to_vec()),
            }
        }
        behind = reader.offset();
    }
    Ok(Found { items, gaps, hint: Hint { number, seq: seq + 1, offset: behind } })
}
