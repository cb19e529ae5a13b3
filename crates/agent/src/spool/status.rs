//! What a spool says of itself.

use std::time::Instant;

use super::{CHUNK_AGE, Inner};

/// Counts of a spool. All are of this process, except what waits, which earlier ones may have left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolStatus {
    /// Streams that are not acknowledged to their end.
    pub streams: usize,
    /// The number of the oldest of them, to be compared with what [`finish`](super::Spool::finish) says.
    pub oldest: Option<u64>,
    /// Chunks that are not acknowledged; the open one counts.
    pub unsent_chunks: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Gaps that were made: dropped, refused, damaged.
    pub gaps: u64,
    /// Lines or readings that never came to the disk and are not told yet.
    pub lost_items: u64,
    /// When the open chunk is old enough to be sent.
    pub due: Option<Instant>,
    /// Something was appended that a power cut would cost, or acknowledged that would be sent again.
    pub unsynced: bool,
}

impl Inner {
    pub(super) fn status(&self) -> SpoolStatus {
        let open = self.writer.as_ref().and_then(|writer| writer.open_since());
        SpoolStatus {
            streams: self.streams.len(),
            oldest: self.streams.first().map(|stream| stream.file.order),
            unsent_chunks: self.streams.iter().map(super::Stream::unsent_chunks).sum::<u64>()
                + u64::from(open.is_some()),
            bytes: self.bytes(),
            gaps: self.gaps,
            lost_items: 0,
            due: open.map(|since| since + CHUNK_AGE),
            unsynced: self.streams.iter().any(super::Stream::is_unsynced),
        }
    }
}
