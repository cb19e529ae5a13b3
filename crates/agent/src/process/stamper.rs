//! What a step prints, labelled and stamped line by line.
//!
//! A [`Stamper`] takes one stream as it is read, in pieces of any size, and gives what the sinks get. It is pure: the
//! caller reads, tells the time and writes. Its rules are those that operators' greps and dashboards rest on:
//!
//! - Before the first byte of each line stands `[out]` or `[err]`, the local time at which that byte was read, a space.
//! - A stream that ends with a line end gets one more such prefix, with the time of its end. Nothing follows a last
//!   line that has no end, and a stream without a byte gives nothing.
//! - What is no UTF-8 becomes U+FFFD, one for each maximal part of a character (Python's `errors="replace"`). A
//!   character that two reads share stays whole: its first bytes are held until the rest is there.
//!
//! It is written to be fast, since a step may print gigabytes: the prefix is made once a read, line ends are found with
//! memchr, lines are copied in blocks of fixed size, and no line costs an allocation.

use memchr::memchr_iter;

use super::local_time::{STAMP_BYTES, Stamp};

/// Bytes of a label.
const LABEL_BYTES: usize = 5;
/// Bytes of a prefix: label, stamp and a space.
pub const PREFIX_BYTES: usize = LABEL_BYTES + STAMP_BYTES + 1;
/// Lines are copied in blocks of this size: the copy of a block needs no call.
const BLOCK: usize = 16;
/// Lines beyond this are left to the library's copy, which then is the faster one.
const BLOCKS_BYTES_MAX: usize = 256;
/// What stands for bytes that are no UTF-8.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Which of a step's streams it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Label {
    /// As it stands before each line.
    pub const fn text(self) -> &'static [u8; LABEL_BYTES] {
        match self {
            Label::Out => b"[out]",
            Label::Err => b"[err]",
        }
    }
}

/// What a stamper gives: a buffer that grows as far as it must and is used again and again.
#[derive(Debug, Default)]
pub struct Stamped {
    /// All of it is initialised; what counts are the first `filled` bytes, and [`BLOCK`] more may be written over.
    bytes: Vec<u8>,
    filled: usize,
}

impl Stamped {
    /// What was given since it was last cleared.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    /// Forgets what was given. The memory stays, up to this many bytes.
    pub fn clear(&mut self, kept_bytes_max: usize) {
        self.filled = 0;
        if self.bytes.len() > kept_bytes_max {
            self.bytes = Vec::new();
        }
    }

    /// Adds bytes as they are.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn make_room(&mut self, more: usize) {
        let needed = self.filled + more + BLOCK;
        if self.bytes.len() < needed {
            self.bytes.resize(needed.next_power_of_two(), 0);
        }
    }
}

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// No byte was read.
    Beginning,
    /// The last byte was a line end.
    LineStart,
    /// The current line has its prefix.
    InLine,
}

/// Stamps one stream.
#[derive(Debug)]
pub struct Stamper {
    label: Label,
    at: At,
    /// The first bytes of a character whose rest was not read yet; three at most.
    held: [u8; 4],
    held_count: usize,
}

impl Stamper {
    /// A stream of which nothing was read.
    pub fn new(label: Label) -> Stamper {
        Stamper { label, at: At::Beginning, held: [0; 4], held_count: 0 }
    }

    /// Takes bytes that were read at this time.
    pub fn push(&mut self, bytes: &[u8], stamp: &Stamp, out: &mut Stamped) {
        let prefix = self.prefix(stamp);
        let mut rest = self.complete_held(bytes, &prefix, out);
        while !rest.is_empty() {
            let error = match plain_text(rest) {
                Ok(()) => {
                    self.add(rest, &prefix, out);
                    return;
                }
                Err(error) => error,
            };
            let (text, broken) = rest.split_at(error.valid_up_to());
            self.add(text, &prefix, out);
            rest = match error.error_len() {
                Some(count) => {
                    self.add(REPLACEMENT, &prefix, out);
                    &broken[count..]
                }
                None => {
                    self.hold(broken, &prefix, out);
                    &[]
                }
            };
        }
    }

    /// The stream has ended, at this time.
    pub fn finish(&mut self, stamp: &Stamp, out: &mut Stamped) {
        let prefix = self.prefix(stamp);
        self.replace_held(&prefix, out);
        if self.at == At::LineStart {
            out.push(&prefix);
        }
        self.at = At::Beginning;
    }

    /// The stream could not be read further, for this cause.
    pub fn fail(&mut self, cause: &str, stamp: &Stamp, out: &mut Stamped) {
        let prefix = self.prefix(stamp);
        self.replace_held(&prefix, out);
        out.push(&prefix);
        out.push(b"ERROR reading stream: ");
        out.push(cause.as_bytes());
        out.push(b"\n");
        self.at = At::Beginning;
    }

    fn prefix(&self, stamp: &Stamp) -> [u8; PREFIX_BYTES] {
        let mut prefix = [b' '; PREFIX_BYTES];
        prefix[..LABEL_BYTES].copy_from_slice(self.label.text());
        prefix[LABEL_BYTES..PREFIX_BYTES - 1].copy_from_slice(stamp.as_bytes());
        prefix
    }

    /// Gives what is held, once the bytes that follow say what it is, and returns those that were not needed for it.
    fn complete_held<'a>(
        &mut self,
        mut bytes: &'a [u8],
        prefix: &[u8; PREFIX_BYTES],
        out: &mut Stamped,
    ) -> &'a [u8] {
        while self.held_count > 0
            && let [next, rest @ ..] = bytes
        {
            self.held[self.held_count] = *next;
            let held = self.held;
            let character = &held[..=self.held_count];
            match std::str::from_utf8(character) {
                Ok(_) => {
                    self.held_count = 0;
                    self.add(character, prefix, out);
                    bytes = rest;
                }
                Err(error) if error.error_len().is_none() => {
                    self.held_count += 1;
                    bytes = rest;
                }
                // What is held is the beginning of a character that does not go on with this byte, which is
                // looked at anew.
                Err(_) => self.replace_held(prefix, out),
            }
        }
        bytes
    }

    /// Keeps the beginning of a character. Its line gets its prefix now: now its first byte was read.
    fn hold(&mut self, bytes: &[u8], prefix: &[u8; PREFIX_BYTES], out: &mut Stamped) {
        self.add_prefix(prefix, out);
        self.held[..bytes.len()].copy_from_slice(bytes);
        self.held_count = bytes.len();
    }

    fn replace_held(&mut self, prefix: &[u8; PREFIX_BYTES], out: &mut Stamped) {
        if self.held_count > 0 {
            self.held_count = 0;
            self.add(REPLACEMENT, prefix, out);
        }
    }

    fn add_prefix(&mut self, prefix: &[u8; PREFIX_BYTES], out: &mut Stamped) {
        if self.at != At::InLine {
            out.push(prefix);
            self.at = At::InLine;
        }
    }

    /// Adds whole characters, with a prefix before each line that begins in them.
    fn add(&mut self, text: &[u8], prefix: &[u8; PREFIX_BYTES], out: &mut Stamped) {
        let Some(last) = text.last() else { return };
        self.add_prefix(prefix, out);
        let line_ends = memchr_iter(b'\n', text).count();
        out.make_room(text.len() + line_ends * PREFIX_BYTES);
        let (bytes, mut at, mut begin) = (out.bytes.as_mut_slice(), out.filled, 0);
        for line_end in memchr_iter(b'\n', text) {
            let behind = line_end + 1;
            at = copy(text, begin, behind, bytes, at);
            begin = behind;
            if behind < text.len() {
                bytes[at..at + PREFIX_BYTES].copy_from_slice(prefix);
                at += PREFIX_BYTES;
            }
        }
        out.filled = copy(text, begin, text.len(), bytes, at);
        self.at = if *last == b'\n' { At::LineStart } else { At::InLine };
    }
}

/// Copies `text[begin..end]` to `bytes[at..]` and returns where it ends there; up to a block behind that may be
/// written over.
#[inline]
fn copy(text: &[u8], begin: usize, end: usize, bytes: &mut [u8], at: usize) -> usize {
    let count = end - begin;
    let blocks_end = begin + count.next_multiple_of(BLOCK);
    if count <= BLOCKS_BYTES_MAX && blocks_end <= text.len() {
        let from = text[begin..blocks_end].as_chunks::<BLOCK>().0;
        let to = bytes[at..at + (blocks_end - begin)].as_chunks_mut::<BLOCK>().0;
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
    } else {
        bytes[at..at + count].copy_from_slice(&text[begin..end]);
    }
    at + count
}

/// Whether all of it is text. Most output is ASCII, which is quicker to tell.
fn plain_text(bytes: &[u8]) -> Result<(), std::str::Utf8Error> {
    if bytes.is_ascii() { Ok(()) } else { std::str::from_utf8(bytes).map(|_text| ()) }
}

#[cfg(test)]
#[path = "stamper_tests.rs"]
mod tests;
