//! A record of a spool, and a chunk as the message that carries it.
//!
//! A record is one byte of tag, eight bytes of chunk number (little-endian) and JSON: a line or comma-separated
//! readings (`L`), or a gap that stands in front of its chunk (`G`).

use bytes::{BufMut, Bytes, BytesMut};
use groundcrew_protocol::ids::{ClaimNumber, RandomId};
use groundcrew_protocol::wire::LogGap;

use super::Kind;

/// Bytes in front of a record's JSON.
const PREFIX_BYTES: usize = 9;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Items,
    Gap,
}

/// Writes the front of a record.
pub(super) fn write_prefix(buffer: &mut Vec<u8>, tag: Tag, seq: u64) {
    buffer.push(match tag {
        Tag::Items => b'L',
        Tag::Gap => b'G',
    });
    buffer.extend(seq.to_le_bytes());
}

/// Puts the chunk's number into a record that has its front.
pub(super) fn set_seq(record: &mut [u8], seq: u64) {
    record[1..PREFIX_BYTES].copy_from_slice(&seq.to_le_bytes());
}

/// Reads a record; `None` for one that a newer version wrote.
pub(super) fn read_record(payload: &[u8]) -> Option<(Tag, u64, &[u8])> {
    let (prefix, json) = payload.split_at_checked(PREFIX_BYTES)?;
    let tag = match prefix[0] {
        b'L' => Tag::Items,
        b'G' => Tag::Gap,
        _ => return None,
    };
    let seq = u64::from_le_bytes(prefix[1..].try_into().expect("eight bytes follow the tag"));
    Some((tag, seq, json))
}

/// A chunk, ready to be sent under some claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(super) kind: Kind,
    /// Which of the spool's streams it is of, and its number there: what an answer is given for.
    pub(super) order: u64,
    pub(super) place: u64,
    /// What the orchestrator knows them as.
    pub(super) stream: RandomId,
    pub(super) seq: u64,
    /// Comma-separated JSON.
    pub(super) items: Vec<u8>,
    pub(super) gap: Option<LogGap>,
    pub(super) closes: bool,
}

impl Message {
    /// Which call takes it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The random id of the stream.
    pub fn stream(&self) -> &RandomId {
        &self.stream
    }

    /// The number in the stream.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes of its content.
    pub fn bytes(&self) -> usize {
        self.items.len()
    }

    /// The body of the call: a `LogRequest` or a `SensorRequest`. It is put together from the records as they
    /// stand, so that the same chunk always has the same bytes, whatever version sends it.
    pub fn body(&self, claim: ClaimNumber) -> Bytes {
        let mut body = BytesMut::with_capacity(self.items.len() + 256);
        let list = match self.kind {
            Kind::Log => "lines",
            Kind::Sensor => "samples",
        };
        let head =
            format!(r#"{{"claim":{claim},"stream":"{}","seq":{},"{list}":["#, self.stream.as_str(), self.seq);
        body.put_slice(head.as_bytes());
        body.put_slice(&self.items);
        body.put_u8(b']');
        if let Some(gap) = &self.gap {
            body.put_slice(b",\"gap\":");
            body.put_slice(&serde_json::to_vec(gap).expect("a gap can be written as JSON"));
        }
        if self.closes {
            body.put_slice(b",\"closes\":true");
        }
        body.put_u8(b'}');
        body.freeze()
    }
}

/// Two gaps in front of one chunk are one.
pub(super) fn merge(gap: Option<LogGap>, other: LogGap) -> LogGap {
    let Some(mut gap) = gap else { return other };
    gap.chunks += other.chunks;
    gap.bytes += other.bytes;
    if !gap.why.contains(&other.why) {
        gap.why = format!("{}; {}", gap.why, other.why);
    }
    gap
}
