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

use std::fmt;

pub use reader::{End, EndKind, RecordReader};
pub use writer::{Opened, RecordWriter};

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

/// How a record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// The length is above the limit.
    Length {
        /// The length found, in bytes.
        found: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// The checksum stored is not the one of what is stored.
    Checksum {
        /// The checksum in the file.
        found: u32,
        /// The checksum of the length and payload in the file.
        expected: u32,
    },
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { found, bytes_max } => {
                write!(f, "a record of {found} bytes where {bytes_max} is the limit")
            }
            Self::Checksum { found, expected } => {
                write!(f, "a record with the checksum {found:08x} where {expected:08x} was expected")
            }
        }
    }
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
