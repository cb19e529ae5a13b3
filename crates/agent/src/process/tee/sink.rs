//! Where a step's output goes: the agent's own streams, and log files.
//!
//! A sink that fails stops neither the step nor the other sink. It takes no more from then on, counts what it missed,
//! and its failure is said once.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::Note;
use super::stream::PIPE_BYTES;
use crate::process::cancel::Cancel;

/// A pipe that poll(2) calls writable takes this many bytes at once (`PIPE_BUF`).
const PIECE_BYTES: usize = 4096;
/// A stream that takes nothing for this long after SIGTERM no longer holds up the agent's end.
pub(super) const BLOCKED_PATIENCE: Duration = Duration::from_secs(5);

/// What became of a sink that failed.
#[derive(Debug)]
struct Failure {
    cause: String,
    bytes_missing: u64,
    said: bool,
}

impl Failure {
    fn new(cause: String, bytes_missing: usize) -> Failure {
        Failure { cause, bytes_missing: bytes_missing as u64, said: false }
    }

    fn note(&mut self, sink: &str) -> Option<Note> {
        (!std::mem::replace(&mut self.said, true)).then(|| Note::SinkFailed {
            sink: sink.to_owned(),
            cause: self.cause.clone(),
            bytes_missing: self.bytes_missing,
        })
    }
}

/// A log file.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    failure: Option<Failure>,
}

impl Log {
    /// An open file; the path is how it is called in messages.
    pub fn new(file: File, path: impl Into<PathBuf>) -> Log {
        Log { file, path: path.into(), failure: None }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if let Some(failure) = &mut self.failure {
            failure.bytes_missing += bytes.len() as u64;
        } else if let Err(error) = self.file.write_all(bytes) {
            // How much of this piece went in is not known to the caller of a failed write_all.
            self.failure = Some(Failure::new(error.to_string(), bytes.len()));
        }
    }

    pub(super) fn note(&mut self) -> Option<Note> {
        let sink = format!("the log {}", self.path.display());
        self.failure.as_mut()?.note(&sink)
    }
}

/// How a stream is written to so that it does not block. Its description is shared with other processes: `O_NONBLOCK`
/// would be theirs too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// A file: writing to it does not wait for a reader.
    Whole,
    /// Each write asks not to wait (Linux 6.4 for pipes).
    Nowait,
    /// Pieces that fit where poll(2) says there is room.
    Pieces,
}

/// One of the agent's own streams. Writing to it never fails: once its reader is gone or its disk full, what is written
/// is counted and forgotten.
#[derive(Debug)]
pub struct ParentStream {
    name: &'static str,
    stream: OwnedFd,
    manner: Manner,
    failure: Option<Failure>,
    cancel: Cancel,
}

impl ParentStream {
    /// The stream of this name. Once `cancel` is asked, a reader who takes nothing is waited for no longer than 5 s.
    pub fn new(name: &'static str, stream: OwnedFd, cancel: Cancel) -> ParentStream {
        let kind = rustix::fs::fstat(&stream).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let manner = match kind {
            Ok(FileType::Fifo) => {
                // Room changes nothing for others who write to it. Without the right to more, it stays as it is.
                if rustix::pipe::fcntl_getpipe_size(&stream).is_ok_and(|size| size < PIPE_BYTES) {
                    let _granted = rustix::pipe::fcntl_setpipe_size(&stream, PIPE_BYTES);
                }
                Manner::Nowait
            }
            Ok(FileType::Socket) => Manner::Nowait,
            Ok(FileType::CharacterDevice) if rustix::termios::isatty(&stream) => Manner::Pieces,
            // What cannot be looked at fails at its first write.
            Ok(_) | Err(_) => Manner::Whole,
        };
        ParentStream { name, stream, manner, failure: None, cancel }
    }

    /// Writes as much as it takes without waiting, and says how much that was.
    pub(super) fn offer(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            if let Some(failure) = &mut self.failure {
                failure.bytes_missing += (bytes.len() - written) as u64;
                return bytes.len();
            }
            match self.write_some(&bytes[written..]) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => self.failure = Some(Failure::new(std::io::Error::from(error).to_string(), 0)),
            }
        }
        written
    }

    fn write_some(&mut self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.manner == Manner::Nowait {
            // An offset of all ones is the stream's own.
            match pwritev2(&self.stream, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => {
                    self.manner = Manner::Pieces;
                }
                result => return result,
            }
        }
        match self.manner {
            Manner::Whole => rustix::io::write(&self.stream, bytes),
            Manner::Pieces | Manner::Nowait => {
                if !self.is_writable(Some(&Timespec::default()))? {
                    return Ok(0);
                }
                rustix::io::write(&self.stream, &bytes[..bytes.len().min(PIECE_BYTES)])
            }
        }
    }

    fn is_writable(&self, timeout: Option<&Timespec>) -> rustix::io::Result<bool> {
        let mut polled = [PollFd::new(&self.stream, PollFlags::OUT)];
        Ok(poll(&mut polled, timeout)? > 0)
    }

    /// Gives it up: it took nothing for too long.
    pub(super) fn give_up(&mut self) {
        if self.failure.is_none() {
            let seconds = BLOCKED_PATIENCE.as_secs();
            let cause = format!("nobody read it for {seconds} s after the agent was asked to end");
            self.failure = Some(Failure::new(cause, 0));
        }
    }

    /// The first failure, once.
    pub fn note(&mut self) -> Option<Note> {
        let name = self.name;
        self.failure.as_mut()?.note(name)
    }

    fn write_waiting(&mut self, mut bytes: &[u8]) {
        let mut give_up: Option<Instant> = None;
        loop {
            bytes = &bytes[self.offer(bytes)..];
            if bytes.is_empty() {
                return;
            }
            if self.cancel.is_asked() {
                give_up.get_or_insert_with(|| Instant::now() + BLOCKED_PATIENCE);
            }
            if give_up.is_some_and(|at| Instant::now() >= at) {
                self.give_up();
                continue;
            }
            let left = give_up.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let stream = PollFd::new(&self.stream, PollFlags::OUT);
            let cancel = PollFd::new(&self.cancel, PollFlags::IN);
            let mut polled = [stream, cancel];
            // An asked handle stays readable: from then on only the stream and the time are waited for.
            let watched = if give_up.is_some() { &mut polled[..1] } else { &mut polled[..] };
            // It may be interrupted; then all is looked at anew.
            let _looked_at_anew = poll(watched, left.as_ref());
        }
    }
}

impl AsFd for ParentStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// For the agent's own messages: waits until they are taken, and never fails.
impl Write for ParentStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_waiting(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pipe(manner: Option<Manner>) -> (std::io::PipeReader, ParentStream) {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut stream = ParentStream::new("stdout", writer.into(), Cancel::new().unwrap());
        stream.manner = manner.unwrap_or(stream.manner);
        (reader, stream)
    }

    #[test]
    fn a_full_pipe_is_never_waited_for() {
        let bytes = vec![b'x'; 1 << 20];
        for manner in [None, Some(Manner::Pieces)] {
            let (mut reader, mut stream) = pipe(manner);
            let taken = stream.offer(&bytes);
            assert!(taken >= PIECE_BYTES && taken < bytes.len(), "{taken}");
            assert_eq!(stream.offer(&bytes), 0);
            let mut read = vec![0; taken];
            reader.read_exact(&mut read).unwrap();
            assert!(stream.offer(&bytes) >= PIECE_BYTES);
        }
    }

    #[test]
    fn a_closed_reader_is_said_once_and_counted() {
        let (reader, mut stream) = pipe(None);
        drop(reader);
        assert_eq!(stream.offer(b"four"), 4);
        stream.write_all(b"five5").unwrap();
        let Some(Note::SinkFailed { sink, cause, bytes_missing }) = stream.note() else { panic!() };
        assert_eq!((sink.as_str(), bytes_missing), ("stdout", 9));
        assert!(cause.contains("Broken pipe"), "{cause}");
        assert!(stream.note().is_none());
    }

    #[test]
    fn a_full_disk_is_said_once_and_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut log = Log::new(full, "/var/log/x.log");
        log.write(b"four");
        log.write(b"five5");
        let note = log.note().unwrap().to_string();
        let expected = "the log /var/log/x.log: No space left on device (os error 28); \
                        9 bytes of the step's output are missing there";
        assert_eq!(note, expected);
        assert!(log.note().is_none());
    }

    #[test]
    fn a_message_waits_for_its_reader() {
        let (mut reader, mut stream) = pipe(None);
        let bytes: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let expected = bytes.clone();
        let writer = std::thread::spawn(move || stream.write_all(&bytes).unwrap());
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        writer.join().unwrap();
        assert!(read == expected);
    }
}
