//! Server-sent events (the HTML standard, section 9.2), read one by one and bounded.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::connect::Connection;
use crate::error::Error;

/// Greatest event, in bytes of its lines.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The id to continue after; the last one that was seen where this event brings none.
    pub id: String,
    /// Its name; empty where it brings none.
    pub event: String,
    /// Its data, lines joined with a newline.
    pub data: String,
}

/// Events as they come. Dropping it closes its connection.
pub struct EventStream {
    call: String,
    _connection: Connection,
    body: Incoming,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl EventStream {
    pub(crate) fn new(call: String, connection: Connection, body: Incoming) -> EventStream {
        EventStream { call, _connection: connection, body, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event; `None` once the server has ended the stream.
    ///
    /// # Errors
    /// [`Error::Timeout`] where for `silence_max` nothing came at all, not even the comments by which a server
    /// shows that it lives; [`Error::AnswerTooLarge`] for an endless event; [`Error::Broken`].
    pub async fn next(&mut self, silence_max: Duration) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let frame = timeout(silence_max, self.body.frame()).await.map_err(|_| Error::Timeout {
                call: self.call.clone(),
                after_ms: silence_max.as_millis() as u64,
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|source| Error::Broken { call: self.call.clone(), source })?;
            let Ok(data) = frame.into_data() else { continue };
            if !self.parser.push(&data, &mut self.ready) {
                return Err(Error::AnswerTooLarge { call: self.call.clone(), bytes_max: EVENT_BYTES_MAX });
            }
        }
    }
}

/// What is known of the event that is being read.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return, whose newline may still come.
    after_return: bool,
    event: Event,
    has_data: bool,
    bytes: usize,
}

impl Parser {
    /// Takes what came; false where one event is larger than is allowed.
    fn push(&mut self, bytes: &[u8], ready: &mut VecDeque<Event>) -> bool {
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    ready.extend(self.end_line());
                }
                _ => {
                    self.after_return = false;
                    self.line.push(byte);
                    self.bytes += 1;
                    if self.bytes > EVENT_BYTES_MAX {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            self.bytes = 0;
            let event = self.event.clone();
            (self.event.event, self.event.data) = (String::new(), String::new());
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            "event" => self.event.event = value.to_owned(),
            "id" if !value.contains('\0') => self.event.id = value.to_owned(),
            // Comments, `retry` and fields to come.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, event: &str, data: &str) -> Event {
        Event { id: id.into(), event: event.into(), data: data.into() }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = "\u{feff}: hi\r\n\r\nid: 1\nevent: log\ndata: ä\ndata:b\n\ndata\r\rid\ndata: x: y\n\nevent: lost\n\n";
        let expected = [event("1", "log", "ä\nb"), event("1", "", ""), event("", "", "x: y")];
        for step in 1..text.len() {
            let (mut parser, mut ready) = (Parser::default(), VecDeque::new());
            for chunk in text.as_bytes().chunks(step) {
                assert!(parser.push(chunk, &mut ready));
            }
            assert_eq!(Vec::from(ready), expected, "in steps of {step}");
        }
    }

    #[test]
    fn an_endless_event_is_refused_and_many_small_ones_are_not() {
        let (mut parser, mut ready) = (Parser::default(), VecDeque::new());
        let line = format!("data: {}\n\n", "x".repeat(1000));
        for _ in 0..3 * EVENT_BYTES_MAX / 1000 {
            assert!(parser.push(line.as_bytes(), &mut ready));
            ready.clear();
        }
        assert!(!parser.push(&vec![b'x'; EVENT_BYTES_MAX + 1], &mut ready));
    }
}
