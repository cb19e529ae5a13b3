//! Appending: which chunk and segment a record goes into, and what goes when there is too much.

use std::path::PathBuf;
use std::time::Instant;

use groundcrew_durable::records::RecordWriter;
use groundcrew_durable::{Error, Result, fault};
use groundcrew_protocol::limits::LOG_BODY_BYTES_MAX;
use groundcrew_protocol::wire::LogGap;

use super::chunk::{Tag, set_seq, write_prefix};
use super::segment::{Segment, options, path_of};
use super::stream::{Stream, random_stream_id};
use super::{CHUNK_AGE, CHUNK_TEXT_BYTES_MAX, Inner, Lost, SpoolError};
use crate::points;

/// A segment is a sixty-fourth of the spool: what is dropped at a time. Not so small that each holds a line
/// or two, not so large that reading one through takes long.
const SEGMENTS: u64 = 64;
const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// JSON in one chunk: half of the greatest body, and 16,384 empty lines.
const CHUNK_JSON_BYTES_MAX: usize = LOG_BODY_BYTES_MAX / 2;
/// Of the limit, the part at the front that stays: how it began says most about why it went wrong.
const HEAD_PART: u64 = 8;

/// What a record counts for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub(super) items: usize,
    pub(super) text_bytes: usize,
}

/// The open chunk.
#[derive(Debug)]
struct Open {
    since: Instant,
    items: usize,
    text_bytes: usize,
    json_bytes: usize,
}

/// The end of the stream that is being written.
#[derive(Debug)]
pub(super) struct Writer {
    records: RecordWriter,
    number: u32,
    /// The open chunk's number, or the next one's.
    seq: u64,
    open: Option<Open>,
}

impl Writer {
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn open_since(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.since)
    }
}

impl Inner {
    pub(super) fn has_open_chunk(&self) -> bool {
        self.writer.as_ref().is_some_and(|writer| writer.open.is_some())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.streams.iter().map(Stream::bytes).sum()
    }

    /// Appends a record that `fill` writes. What was lost before it is told first.
    pub(super) fn append(
        &mut self,
        weight: Weight,
        now: Instant,
        lost: &Lost,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> std::result::Result<(), SpoolError> {
        let appended =
            self.tell_lost(now, lost).and_then(|()| self.try_append(Tag::Items, weight, now, fill));
        if appended.is_err() {
            lost.add(weight.items, weight.text_bytes);
        }
        appended
    }

    /// Closes the stream, which is then sent to its end.
    pub(super) fn finish(&mut self) {
        self.close_chunk();
        self.writer = None;
    }

    /// Puts a gap in front of the next chunk for what never came to the disk.
    pub(super) fn tell_lost(&mut self, now: Instant, lost: &Lost) -> std::result::Result<(), SpoolError> {
        let Some((items, bytes)) = lost.take() else { return Ok(()) };
        self.close_chunk();
        let why = format!("{items} lines or readings were lost on their way to the disk");
        let gap = LogGap { chunks: 0, bytes, why };
        let told = self.try_append(Tag::Gap, Weight { items: 0, text_bytes: 0 }, now, |buffer| {
            serde_json::to_writer(buffer, &gap).expect("a gap can be written as JSON");
        });
        match told {
            Ok(()) => self.gaps += 1,
            Err(_) => lost.add(items as usize, bytes as usize),
        }
        told
    }

    fn try_append(
        &mut self,
        tag: Tag,
        weight: Weight,
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> std::result::Result<(), SpoolError> {
        let kind = self.kind;
        let disk = |source| SpoolError::Disk { kind, source };
        self.drop_middle().map_err(disk)?;
        let (bytes, bytes_max) = (self.bytes(), self.bytes_max);
        // Head and tail may be over the limit by a segment each before nothing more is taken.
        if bytes > bytes_max + 2 * self.segment_bytes_max() + CHUNK_JSON_BYTES_MAX as u64 {
            return Err(SpoolError::Full { kind, bytes, bytes_max });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        // The chunk's number is put in once it is known.
        write_prefix(&mut buffer, tag, 0);
        fill(&mut buffer);
        let written = self.write(weight, now, &mut buffer).map_err(disk);
        self.buffer = buffer;
        written
    }

    fn write(&mut self, weight: Weight, now: Instant, record: &mut [u8]) -> Result<()> {
        if self.is_full_for(weight, record.len(), now) {
            self.close_chunk();
        }
        self.make_ready()?;
        let writer = self.writer.as_mut().expect("it was just made ready");
        set_seq(record, writer.seq);
        let stream = self.streams.last_mut().expect("a writer has a stream");
        let segment = stream.segments.back_mut().expect("a writer has a segment");
        match writer.records.append(record) {
            Ok(end) => segment.bytes = end,
            Err(error) => {
                if matches!(error, Error::Broken { .. }) {
                    // What is there is sent; what comes goes into another stream.
                    self.finish();
                }
                return Err(error);
            }
        }
        fault::point(points::SPOOL_APPENDED);
        if stream.unsynced.last() != Some(&writer.number) {
            stream.unsynced.push(writer.number);
        }
        let open = writer.open.get_or_insert(Open { since: now, items: 0, text_bytes: 0, json_bytes: 0 });
        open.items += weight.items;
        open.text_bytes += weight.text_bytes;
        open.json_bytes += record.len();
        Ok(())
    }

    fn is_full_for(&self, weight: Weight, json_bytes: usize, now: Instant) -> bool {
        let Some(open) = self.writer.as_ref().and_then(|writer| writer.open.as_ref()) else { return false };
        open.text_bytes + weight.text_bytes > CHUNK_TEXT_BYTES_MAX
            || open.items + weight.items > self.kind.items_max()
            || open.json_bytes + json_bytes > CHUNK_JSON_BYTES_MAX
            || now.saturating_duration_since(open.since) >= CHUNK_AGE
    }

    /// Closes the open chunk, so that it may be sent.
    pub(super) fn close_chunk(&mut self) {
        let Some(writer) = self.writer.as_mut() else { return };
        if writer.open.take().is_some() {
            writer.seq += 1;
            let stream = self.streams.last_mut().expect("a writer has a stream");
            stream.segments.back_mut().expect("a writer has a segment").next = writer.seq;
        }
    }

    /// Has a stream and a segment to write into. A chunk lies in one segment.
    fn make_ready(&mut self) -> Result<()> {
        let segment_bytes_max = self.segment_bytes_max();
        match &self.writer {
            Some(writer) if writer.open.is_some() || writer.records.bytes() < segment_bytes_max => {
                return Ok(());
            }
            Some(writer) => {
                let (number, seq) = (writer.number + 1, writer.seq);
                return self.begin_segment(number, seq);
            }
            None => {}
        }
        let id = random_stream_id(&self.folder)?;
        let stream = Stream::create(&self.folder, self.kind, &self.run, id, self.next_order)?;
        self.next_order += 1;
        self.streams.push(stream);
        let begun = self.begin_segment(0, 0);
        if begun.is_err() {
            self.streams.pop();
        }
        begun
    }

    fn begin_segment(&mut self, number: u32, seq: u64) -> Result<()> {
        let stream = self.streams.last_mut().expect("the caller made one");
        let path = path_of(&stream.folder, number);
        let (records, _) = RecordWriter::open(&path, &options())?;
        fault::point(points::SPOOL_SEGMENT_MADE);
        stream.segments.push_back(Segment { number, first: seq, next: seq, bytes: 0, damaged_bytes: 0 });
        self.writer = Some(Writer { records, number, seq, open: None });
        Ok(())
    }

    fn segment_bytes_max(&self) -> u64 {
        (self.bytes_max / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }

    /// Removes the oldest middle until the limit holds again.
    fn drop_middle(&mut self) -> Result<()> {
        while self.bytes() > self.bytes_max {
            let Some((stream, at)) = self.oldest_middle() else { return Ok(()) };
            self.drop_segment(stream, at)?;
        }
        Ok(())
    }

    /// The oldest segment behind the head that is not the newest of all. The first one is being sent and stays
    /// whatever its size.
    fn oldest_middle(&self) -> Option<(usize, usize)> {
        let of_stream = |(at, stream): (usize, &Stream)| -> Vec<(usize, usize, u64)> {
            stream.segments.iter().enumerate().map(|(place, segment)| (at, place, segment.bytes)).collect()
        };
        let places: Vec<_> = self.streams.iter().enumerate().flat_map(of_stream).collect();
        let mut head_bytes = 0;
        for (position, (stream, at, bytes)) in places.iter().enumerate() {
            if position + 1 == places.len() {
                return None;
            }
            if position > 0 && head_bytes + bytes > self.bytes_max / HEAD_PART {
                return Some((*stream, *at));
            }
            head_bytes += bytes;
        }
        None
    }

    /// The gap is on the disk before the segment is gone from it.
    fn drop_segment(&mut self, stream: usize, at: usize) -> Result<()> {
        let stream = &mut self.streams[stream];
        let segment = stream.segments[at].clone();
        let before = stream.file.clone();
        stream.add_gap(segment.first, segment.next, segment.bytes, "the spool was full");
        let is_new = stream.file.gaps.len() > before.gaps.len();
        if let Err(error) = stream.store() {
            stream.file = before;
            return Err(error);
        }
        fault::point(points::SPOOL_GAP_WRITTEN);
        stream.remove_segment_file(segment.number)?;
        stream.segments.remove(at);
        self.gaps += u64::from(is_new);
        Ok(())
    }

    /// The files that a power cut would cost something of.
    pub(super) fn take_unsynced(&mut self) -> Vec<PathBuf> {
        let of_stream = |stream: &mut Stream| -> Vec<PathBuf> {
            std::mem::take(&mut stream.unsynced)
                .iter()
                .map(|number| path_of(&stream.folder, *number))
                .collect()
        };
        self.streams.iter_mut().flat_map(of_stream).collect()
    }
}
