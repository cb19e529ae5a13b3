//! What is sent next, and what its answer changes. Called by one forwarder, on the I/O thread.

use std::time::Instant;

use groundcrew_durable::{Error, Result};
use groundcrew_protocol::wire::LogGap;

use super::chunk::{Message, merge};
use super::segment::{Found, path_of, read_chunk};
use super::stream::{Alias, Stream, random_stream_id};
use super::{CHUNK_AGE, Inner, Spool};

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The orchestrator has it, from now on or since before.
    Taken,
    /// The orchestrator has something else under the same stream and number.
    OtherContent,
    /// The orchestrator will never take it, for this reason.
    Refused(String),
}

/// What a gap says behind a chunk that is known with other content, and that this process did not write.
const OTHER_CONTENT: &str = "the chunk before is known with other content: cut short here by a power cut, or a copy of this home sent it";

/// What to do for the next message.
enum Plan {
    Nothing,
    /// Read a chunk of the first stream.
    Read {
        seq: u64,
        number: u32,
    },
    /// The first stream is at its end.
    Close {
        seq: u64,
    },
}

impl Spool {
    /// The oldest closed chunk that is not acknowledged, or a closing mark; `None` where there is nothing to
    /// send at this moment. Asking again gives the same. An open chunk of full age is closed by this. Blocks.
    ///
    /// # Errors
    /// Those of the disk. What cannot be read because it is gone is passed over as a gap.
    pub fn next_message(&self, now: Instant) -> Result<Option<Message>> {
        loop {
            let (plan, path, hint) = self.locked(|inner| {
                let plan = inner.plan(now)?;
                let stream = inner.streams.first();
                let path = |stream: &Stream| {
                    if let Plan::Read { number, .. } = plan {
                        Some(path_of(&stream.folder, number))
                    } else {
                        None
                    }
                };
                let path = stream.and_then(path);
                Ok::<_, Error>((plan, path, stream.and_then(|stream| stream.hint)))
            })?;
            let (seq, number) = match plan {
                Plan::Nothing => return Ok(None),
                Plan::Close { seq } => return Ok(Some(self.locked(|inner| inner.closing_mark(seq)))),
                Plan::Read { seq, number } => (seq, number),
            };
            // Not under the lock: who appends must not wait for who reads. The first segment is never dropped.
            let path = path.expect("a chunk that is read has a path");
            match read_chunk(&path, number, seq, hint) {
                Ok(found) => {
                    if let Some(message) = self.locked(|inner| inner.message(seq, found)) {
                        return Ok(Some(message));
                    }
                }
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    self.locked(|inner| inner.pass_over_segment(number))?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says what became of the last message. Blocks.
    ///
    /// # Errors
    /// Those of the disk; the message is then sent again at some later time, which changes nothing.
    pub fn answered(&self, message: &Message, answer: Answer) -> Result<()> {
        self.locked(|inner| inner.answered(message, answer))
    }
}

impl Inner {
    fn is_written(&self) -> bool {
        self.streams.len() == 1 && self.writer.is_some()
    }

    fn plan(&mut self, now: Instant) -> Result<Plan> {
        loop {
            let is_written = self.is_written();
            let Some(stream) = self.streams.first() else { return Ok(Plan::Nothing) };
            let next = stream.file.acknowledged;
            if let Some(segment) = stream.segments.iter().find(|segment| segment.next > next) {
                return Ok(Plan::Read { seq: next.max(segment.first), number: segment.number });
            }
            if is_written {
                let open_since = self.writer.as_ref().and_then(|writer| writer.open_since());
                if open_since.is_none_or(|since| now.saturating_duration_since(since) < CHUNK_AGE) {
                    return Ok(Plan::Nothing);
                }
                self.close_chunk();
                continue;
            }
            let seq = stream.end();
            if seq > 0 || !stream.file.gaps.is_empty() {
                return Ok(Plan::Close { seq });
            }
            // The orchestrator has never heard of it.
            self.streams.remove(0).remove()?;
        }
    }

    fn closing_mark(&mut self, seq: u64) -> Message {
        let stream = &self.streams[0];
        let (id, seq_known) = stream.known_as(seq);
        let (order, gap) = (stream.file.order, stream.gap_before(seq));
        Message {
            kind: self.kind,
            order,
            place: seq,
            stream: id,
            seq: seq_known,
            items: Vec::new(),
            gap,
            closes: true,
        }
    }

    /// A chunk as it was found; `None` where nothing of it was, and it is passed over.
    fn message(&mut self, seq: u64, found: Found) -> Option<Message> {
        let kind = self.kind;
        let stream = &mut self.streams[0];
        stream.hint = Some(found.hint);
        let told = found.gaps.iter().filter_map(|json| serde_json::from_slice::<LogGap>(json).ok());
        let gap = told.fold(stream.gap_before(seq), |sum, gap| Some(merge(sum, gap)));
        if found.items.is_empty() && found.gaps.is_empty() {
            stream.add_gap(seq, seq + 1, 0, "not there any more");
            stream.file.acknowledged = seq + 1;
            self.gaps += 1;
            return None;
        }
        let (id, seq_known) = stream.known_as(seq);
        let order = stream.file.order;
        let items = found.items;
        Some(Message { kind, order, place: seq, stream: id, seq: seq_known, items, gap, closes: false })
    }

    /// Somebody has removed a segment's file.
    fn pass_over_segment(&mut self, number: u32) -> Result<()> {
        let stream = &self.streams[0];
        let Some(at) = stream.segments.iter().position(|segment| segment.number == number) else {
            return Ok(());
        };
        if self.writer.is_some() && self.streams.len() == 1 && at + 1 == self.streams[0].segments.len() {
            // What comes must go where it can be found.
            self.finish();
        }
        self.gaps += 1;
        let stream = &mut self.streams[0];
        let segment = stream.segments[at].clone();
        let first = segment.first.max(stream.file.acknowledged);
        stream.add_gap(first, segment.next, segment.bytes, "its file is gone");
        stream.file.acknowledged = segment.next;
        stream.segments.remove(at);
        stream.store()
    }

    fn answered(&mut self, message: &Message, answer: Answer) -> Result<()> {
        let is_written = self.is_written();
        let Some(stream) = self.streams.first_mut().filter(|stream| stream.file.order == message.order)
        else {
            return Ok(());
        };
        match answer {
            Answer::Taken if message.closes => self.streams.remove(0).remove(),
            Answer::Taken => stream.acknowledge(message.place + 1, is_written),
            Answer::OtherContent if stream.is_ours => self.rename(message),
            // A power cut took the end of this chunk here, and the orchestrator has all of it; or a copy of this home
            // has used its number. Nobody can tell which, so the gap behind it says both. A closing mark goes behind.
            Answer::OtherContent if message.closes => {
                stream.file.acknowledged = message.place + 1;
                stream.store()
            }
            Answer::OtherContent => {
                let next = message.place + 1;
                stream.add_gap(next, next, message.items.len() as u64, OTHER_CONTENT);
                stream.acknowledge(next, is_written)?;
                stream.store()
            }
            Answer::Refused(_) if message.closes => self.streams.remove(0).remove(),
            Answer::Refused(why) => self.pass_over_refused(message, &why),
        }
    }

    /// From this chunk on the stream goes by a new id. Where that does not help the chunk is passed over.
    fn rename(&mut self, message: &Message) -> Result<()> {
        let id = random_stream_id(&self.folder)?;
        let stream = &mut self.streams[0];
        if stream.file.aliases.last().is_some_and(|alias| alias.from == message.place) {
            return self.pass_over_refused(message, "other content is known under every id");
        }
        stream.file.aliases.push(Alias { from: message.place, stream: id });
        stream.store()
    }

    /// The gap that a refused chunk leaves is in front of the next, and with it what was missing before it.
    fn pass_over_refused(&mut self, message: &Message, why: &str) -> Result<()> {
        let is_written = self.is_written();
        let stream = &mut self.streams[0];
        stream.file.gaps.retain(|gap| gap.before > message.place);
        stream.add_gap(message.place, message.place + 1, message.items.len() as u64, why);
        if let (Some(earlier), Some(gap)) = (&message.gap, stream.file.gaps.last_mut()) {
            gap.gap = merge(Some(earlier.clone()), gap.gap.clone());
        }
        self.gaps += 1;
        stream.acknowledge(message.place + 1, is_written)?;
        stream.store()
    }

    /// Remembers what was acknowledged, so that less is sent again after a crash.
    pub(super) fn store_acknowledged(&mut self) -> Result<()> {
        self.streams.iter_mut().filter(|stream| stream.is_dirty).try_for_each(|stream| stream.store())
    }
}
