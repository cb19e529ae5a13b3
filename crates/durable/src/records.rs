//! Append-only files of records, for spools: what was written whole is found again, whatever happened since.
//!
//! A record is four bytes of length, four bytes of CRC-32 (both little-endian) and the payload; the checksum
//! covers length and payload, so that a run of zeros, which is what some file systems leave of an unfinished
//! write, is no record. A reader goes from record to record up to the first that is not whole, and says why it
//! ended there:
//!
//! ```text
//!   at the last record's end ........................................... Clean
//!   the file ends inside a record, or the last record's checksum is
//!   wrong, or only zeros follow: a write that a crash cut off ........... Torn
//!   a length above the limit, or a wrong checksum with more behind it ... Corrupt
//! ```
//!
//! [`RecordWriter`] cuts a torn tail off when it opens a file, and refuses a corrupt one: what lies behind the
//! damage may be worth something to somebody, so the caller begins another file.

mod reader;
mod writer;

pub use reader::{End, EndKind, RecordReader};
pub use writer::{Opened, RecordWriter};

pub use crate::found::Corruption;

/// Bytes in front of each payload: its length and its checksum.
pub const HEADER_BYTES: u64 = 8;

/// How a record file is written and read.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The largest payload, in bytes. A reader takes a greater length for damage, so it must not shrink
    /// between two versions that share a file.
    pub record_bytes_max: u32,
    /// The mode of a file that did not exist, less the umask.
    pub mode_for_new: u32,
}

impl Default for Options {
    /// 1 MiB, many times the 64 KiB in which logs are forwarded; mode 0600.
    fn default() -> Self {
        Self { record_bytes_max: 1 << 20, mode_for_new: 0o600 }
    }
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
