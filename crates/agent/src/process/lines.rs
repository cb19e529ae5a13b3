//! Bytes into lines: bounded, decoded for display, never cut inside a character.

use groundcrew_protocol::limits::LOG_LINE_BYTES_MAX;

/// Room that is kept in a cut line for the note that says how much was cut.
const NOTE_BYTES_MAX: usize = 48;
/// Bytes of text that a cut line keeps.
const KEPT_BYTES_MAX: usize = LOG_LINE_BYTES_MAX - NOTE_BYTES_MAX;

/// Collects the bytes of one stream and gives its lines.
///
/// It holds at most [`LOG_LINE_BYTES_MAX`] bytes and four, however long a line is.
#[derive(Default)]
pub struct LineSplitter {
    held: Vec<u8>,
    /// Bytes of the current line that were not held.
    beyond: u64,
}

impl LineSplitter {
    /// Takes bytes as they were read and calls `on_line` for each line that ends in them.
    pub fn push(&mut self, mut bytes: &[u8], mut on_line: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.hold(&bytes[..end]);
            bytes = &bytes[end + 1..];
            on_line(self.take());
        }
        self.hold(bytes);
    }

    /// The last line, where the stream ended without a line end.
    pub fn finish(&mut self) -> Option<String> {
        (!self.held.is_empty() || self.beyond > 0).then(|| self.take())
    }

    fn hold(&mut self, bytes: &[u8]) {
        // Four more than a line may have: whether the last character is whole shows only behind it, and a
        // carriage return before the line end does not count.
        let room = (LOG_LINE_BYTES_MAX + 4).saturating_sub(self.held.len());
        let held = &bytes[..bytes.len().min(room)];
        self.held.extend_from_slice(held);
        self.beyond = self.beyond.saturating_add((bytes.len() - held.len()) as u64);
    }

    fn take(&mut self) -> String {
        if self.beyond == 0 && self.held.last() == Some(&b'\r') {
            self.held.pop();
        }
        let line = display(&self.held, self.beyond);
        self.held.clear();
        self.beyond = 0;
        line
    }
}

/// Decodes a line of which `beyond` more bytes are not there. What is no UTF-8 becomes U+FFFD.
fn display(bytes: &[u8], beyond: u64) -> String {
    let (text, used) = decode(bytes, LOG_LINE_BYTES_MAX);
    if beyond == 0 && used == bytes.len() {
        return text;
    }
    let (mut text, used) = decode(bytes, KEPT_BYTES_MAX);
    let cut = beyond.saturating_add((bytes.len() - used) as u64);
    text.push_str(&format!(" [{cut} more bytes cut]"));
    text
}

/// Decodes at most as many bytes as give `text_bytes_max` bytes of text; says how many were used.
fn decode(bytes: &[u8], text_bytes_max: usize) -> (String, usize) {
    let mut text = String::with_capacity(bytes.len().min(text_bytes_max));
    let mut used = 0;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if text.len() + character.len_utf8() > text_bytes_max {
                return (text, used);
            }
            text.push(character);
            used += character.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            if text.len() + char::REPLACEMENT_CHARACTER.len_utf8() > text_bytes_max {
                return (text, used);
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += chunk.invalid().len();
        }
    }
    (text, used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines_of(pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            splitter.push(piece, |line| lines.push(line));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_end_at_line_ends_and_at_the_end() {
        assert_eq!(lines_of(&[b"a\nb", b"c\r\n", b"\n", b"end"]), ["a", "bc", "", "end"]);
        assert_eq!(lines_of(&[b"a\n"]), ["a"]);
        assert!(lines_of(&[b""]).is_empty());
    }

    #[test]
    fn a_character_that_two_reads_share_is_whole() {
        let bytes = "°C grün 温度\n".as_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(lines_of(&[&bytes[..cut], &bytes[cut..]]), ["°C grün 温度"], "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        assert_eq!(lines_of(&[b"a\xff\xfeb\n\xc3"]), ["a\u{fffd}\u{fffd}b", "\u{fffd}"]);
    }

    #[test]
    fn a_long_line_is_cut_at_a_character_and_says_how_much() {
        let long = "é".repeat(LOG_LINE_BYTES_MAX);
        let lines = lines_of(&[long.as_bytes(), b"\nnext\n"]);
        assert_eq!(lines[1], "next");
        let (kept, note) = lines[0].split_once(" [").unwrap();
        assert!(kept.chars().all(|character| character == 'é'));
        assert_eq!(note, format!("{} more bytes cut]", long.len() - kept.len()));
        assert!(lines[0].len() <= LOG_LINE_BYTES_MAX);
        // A line of exactly the limit is not cut.
        let exact = "x".repeat(LOG_LINE_BYTES_MAX);
        assert_eq!(lines_of(&[exact.as_bytes(), b"\r\n"]), [exact]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_line_too_long_or_depend_on_how_they_are_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
            at in any::<proptest::sample::Index>(),
        ) {
            let at = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
            let whole = lines_of(&[&bytes]);
            prop_assert!(whole.iter().all(|line| line.len() <= LOG_LINE_BYTES_MAX));
            prop_assert_eq!(&whole, &lines_of(&[&bytes[..at], &bytes[at..]]));
            let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(whole.len() == ends || whole.len() == ends + 1);
        }
    }
}
