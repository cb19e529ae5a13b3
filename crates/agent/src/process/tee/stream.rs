//! One of a child's streams: read, stamped, and written to a log and to one of the agent's own streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::Note;
use super::sink::{Log, ParentStream};
use crate::process::local_time::LocalTime;
use crate::process::stamper::{Label, Stamped, Stamper};

/// Reads that follow each other are written together, up to a little more than this, so that the agent's own pipe, which
/// holds 64 KiB, takes it whole. Nothing is kept back for it: it ends as soon as there is nothing more to read.
const BATCH_BYTES: usize = 48 * 1024;
/// What pipes hold, where the kernel grants it: one who prints much, and one who reads much, then seldom wait.
pub(super) const PIPE_BYTES: usize = 256 * 1024;
/// A buffer that one read of line ends made larger than this is given back.
const KEPT_BYTES_MAX: usize = 512 * 1024;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// None once it has ended.
    pipe: Option<OwnedFd>,
    label: Label,
    stamper: Stamper,
    log: Option<Log>,
    stamped: Stamped,
    /// How much of `stamped` the log was given.
    logged: usize,
    /// How much of `stamped` the agent's stream has taken.
    taken: usize,
    bytes_read: u64,
}

impl Stream {
    /// A stream that comes from nowhere yet.
    pub(super) fn new(label: Label, log: Option<Log>) -> Stream {
        Stream {
            pipe: None,
            label,
            stamper: Stamper::new(label),
            log,
            stamped: Stamped::default(),
            logged: 0,
            taken: 0,
            bytes_read: 0,
        }
    }

    /// It comes from this pipe, of which nobody else has the reading end.
    pub(super) fn open(&mut self, pipe: OwnedFd) -> std::io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        // Without the right to a larger one, it stays as it is.
        let _granted = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_BYTES);
        self.pipe = Some(pipe);
        Ok(())
    }

    pub(super) fn label(&self) -> Label {
        self.label
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// What it has given that the agent's stream has not taken.
    pub(super) fn is_pending(&self) -> bool {
        self.taken < self.stamped.as_slice().len()
    }

    /// How many bytes it will have given once what is in the pipe now has been read.
    pub(super) fn bytes_written(&self) -> u64 {
        let waiting = self.pipe.as_ref().map(rustix::io::ioctl_fionread);
        self.bytes_read + waiting.and_then(Result::ok).unwrap_or(0)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What must happen before it can go on: there is something to read, or room for what was read.
    pub(super) fn interest<'a>(&'a self, parent: &'a ParentStream) -> Option<(BorrowedFd<'a>, PollFlags)> {
        if self.is_pending() {
            return Some((parent.as_fd(), PollFlags::OUT));
        }
        self.pipe.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN))
    }

    /// Goes on: writes what is pending, and reads where nothing is.
    pub(super) fn go_on(&mut self, buffer: &mut [u8], time: &mut LocalTime, parent: &mut ParentStream) {
        self.offer(parent);
        if self.is_pending() {
            return;
        }
        let Some(pipe) = &self.pipe else { return };
        let read = read_batch(
            |buffer| rustix::io::read(pipe, buffer),
            buffer,
            time,
            &mut self.stamper,
            &mut self.stamped,
        );
        self.bytes_read += read.bytes;
        if read.ended {
            self.pipe = None;
        }
        self.deliver(parent);
    }

    /// Bytes of our own, without a stamp.
    pub(super) fn say_plain(&mut self, bytes: &[u8], parent: &mut ParentStream) {
        self.stamped.push(bytes);
        self.deliver(parent);
    }

    /// A line of our own in a stream that has no child, as if the child had said it.
    pub(super) fn say_stamped(&mut self, line: &str, time: &mut LocalTime, parent: &mut ParentStream) {
        let stamp = time.now();
        self.stamper.push(line.as_bytes(), &stamp, &mut self.stamped);
        self.stamper.push(b"\n", &stamp, &mut self.stamped);
        self.stamper.finish(&stamp, &mut self.stamped);
        self.deliver(parent);
    }

    /// The log's failure, once.
    pub(super) fn note(&mut self) -> Option<Note> {
        self.log.as_mut()?.note()
    }

    /// Writes what was just stamped: to the log, whole, and to the agent's stream, as far as it takes it.
    fn deliver(&mut self, parent: &mut ParentStream) {
        if let Some(log) = &mut self.log {
            log.write(&self.stamped.as_slice()[self.logged..]);
        }
        self.logged = self.stamped.as_slice().len();
        self.offer(parent);
    }

    fn offer(&mut self, parent: &mut ParentStream) {
        if self.is_pending() {
            self.taken += parent.offer(&self.stamped.as_slice()[self.taken..]);
        }
        if !self.is_pending() {
            (self.logged, self.taken) = (0, 0);
            self.stamped.clear(KEPT_BYTES_MAX);
        }
    }
}

/// What one turn of reading found.
#[derive(Debug, PartialEq, Eq)]
struct Batch {
    bytes: u64,
    ended: bool,
}

/// Reads into `buffer` and stamps, until there is nothing more to read or the batch is full. No read is for more than
/// the buffer.
fn read_batch(
    mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    buffer: &mut [u8],
    time: &mut LocalTime,
    stamper: &mut Stamper,
    stamped: &mut Stamped,
) -> Batch {
    let mut bytes = 0;
    while stamped.as_slice().len() < BATCH_BYTES {
        match read(buffer) {
            Ok(0) => {
                stamper.finish(&time.now(), stamped);
                return Batch { bytes, ended: true };
            }
            Ok(count) => {
                bytes += count as u64;
                stamper.push(&buffer[..count], &time.now(), stamped);
                // A pipe gives less only when it has no more.
                if count < buffer.len() {
                    break;
                }
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => {
                stamper.fail(&std::io::Error::from(error).to_string(), &time.now(), stamped);
                return Batch { bytes, ended: true };
            }
        }
    }
    Batch { bytes, ended: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn batch(buffer: &mut [u8], read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> (Batch, String) {
        let (mut stamper, mut stamped) = (Stamper::new(Label::Out), Stamped::default());
        let mut time = LocalTime::in_zone(TimeZone::UTC);
        let batch = read_batch(read, buffer, &mut time, &mut stamper, &mut stamped);
        (batch, String::from_utf8(stamped.as_slice().to_vec()).unwrap())
    }

    #[test]
    fn no_read_is_for_more_than_the_buffer() {
        let mut left = &[b'x'; 100][..];
        let mut asked = Vec::new();
        let (batch, text) = batch(&mut [0; 16], |buffer| {
            asked.push(buffer.len());
            std::io::Read::read(&mut left, buffer).map_err(|_| Errno::IO)
        });
        // Six full reads, and one that the pipe's end cut short.
        assert_eq!(asked, [16; 7]);
        assert_eq!(batch, Batch { bytes: 100, ended: false });
        assert!(text.ends_with(&"x".repeat(100)));
    }

    #[test]
    fn a_batch_ends_where_a_stream_without_end_would_fill_memory() {
        let (batch, text) = batch(&mut [0; 4096], |buffer| {
            buffer.fill(b'\n');
            Ok(buffer.len())
        });
        assert!(!batch.ended);
        assert!(text.len() < 3 * BATCH_BYTES, "{}", text.len());
    }

    #[test]
    fn a_read_error_is_said_in_the_stream_and_ends_it() {
        let mut reads = [Ok(2), Err(Errno::INTR), Err(Errno::IO)].into_iter();
        let (batch, text) = batch(&mut [b'x'; 2], |_buffer| reads.next().unwrap());
        assert_eq!(batch, Batch { bytes: 2, ended: true });
        assert!(text.ends_with(" ERROR reading stream: Input/output error (os error 5)\n"), "{text}");
    }
}
