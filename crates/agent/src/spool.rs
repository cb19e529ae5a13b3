//! The durable spools of log lines and sensor readings: on the disk before anybody else sees them, and there
//! until the orchestrator has them.
//!
//! Each start of the agent makes a new **stream** of each kind, known by a random id. A stream is a folder of
//! **segments**, which are files of records; a record is one line or one batch of readings with the number of
//! its **chunk**. A chunk is what is sent in one message. It is sent only once it is closed, so that (stream,
//! seq) never has two contents; the end of the process closes the last one. Streams of earlier processes are
//! sent first, and end with a closing mark.
//!
//! ```text
//!   append ──> open chunk ──size or age──> closed ──sent, acknowledged──> its segment is removed
//!                                              └──over the limit──> the oldest middle goes, a gap stays
//! ```
//!
//! [`Spool::append_line`] blocks for one write(2) and is for plain threads; the loop uses a [`LineSender`].
//! Everything else blocks too and runs on the I/O thread. Power cuts may cost what was not synced, two seconds.

mod chunk;
mod feed;
mod segment;
mod status;
mod stream;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use groundcrew_durable::Error;
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::limits::{
    LOG_CHUNK_AGE_MS, LOG_CHUNK_BYTES, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, SENSOR_SAMPLES_MAX, SPOOL_BYTES_MAX,
};
use groundcrew_protocol::wire::{HomeKind, LogLine, SensorSample};
use tokio::sync::Notify;

use crate::home::Home;
use crate::io_thread::IoThread;
pub use chunk::Message;
pub use feed::Answer;
pub use status::SpoolStatus;
use stream::Stream;
use writer::{Weight, Writer};

/// What a spool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Lines of log.
    Log,
    /// Readings of sensors.
    Sensor,
}

impl Kind {
    /// The word of it: the call that takes it, and the first part of its folders' names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Sensor => "sensor",
        }
    }

    /// Lines or readings in one chunk.
    fn items_max(self) -> usize {
        match self {
            Kind::Log => LOG_LINES_MAX,
            Kind::Sensor => SENSOR_SAMPLES_MAX,
        }
    }
}

/// What a spool may hold, in bytes on the disk: of 256 MiB, or in a home in memory 1 % of the memory where
/// that is less, logs have fifteen sixteenths and readings the rest.
pub fn bytes_max(kind: Kind, home: &HomeKind, memory_bytes: u64) -> u64 {
    let whole = match home {
        HomeKind::Durable => SPOOL_BYTES_MAX,
        HomeKind::Volatile | HomeKind::Unknown(_) => SPOOL_BYTES_MAX.min(memory_bytes / 100),
    };
    match kind {
        Kind::Log => whole - whole / 16,
        Kind::Sensor => whole / 16,
    }
}

/// The memory of this machine, in bytes.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    // The fields are as wide as a long, which is narrower on some machines.
    #[allow(clippy::unnecessary_cast)]
    let (total, unit) = (info.totalram as u64, u64::from(info.mem_unit));
    total.saturating_mul(unit)
}

/// Why a line is not in the spool. It is counted, and the next chunk says so.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk will not take it.
    #[error("writing to the {} spool", kind.as_str())]
    Disk {
        /// Which spool.
        kind: Kind,
        /// What it says.
        source: Error,
    },
    /// The spool is over its limit, and nothing in it can be let go.
    #[error("the {} spool is full: {bytes} bytes where {bytes_max} is the limit", kind.as_str())]
    Full {
        /// Which spool.
        kind: Kind,
        /// What it holds.
        bytes: u64,
        /// What it may hold.
        bytes_max: u64,
    },
}

/// What was lost before it came to the disk, not yet told to the orchestrator.
#[derive(Debug, Default)]
struct Lost {
    items: AtomicU64,
    bytes: AtomicU64,
}

impl Lost {
    fn add(&self, items: usize, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.items.fetch_add(items as u64, Ordering::Release);
    }

    fn take(&self) -> Option<(u64, u64)> {
        let items = self.items.swap(0, Ordering::Acquire);
        (items > 0).then(|| (items, self.bytes.swap(0, Ordering::Relaxed)))
    }
}

/// A spool of one kind. Clones share it.
#[derive(Debug, Clone)]
pub struct Spool {
    kind: Kind,
    /// Held over calls on the disk: never taken by the loop.
    inner: Arc<Mutex<Inner>>,
    shared: Arc<Shared>,
}

/// What may be looked at without waiting for the disk.
#[derive(Debug, Default)]
struct Shared {
    lost: Lost,
    status: Mutex<SpoolStatus>,
    /// Something has come, or a chunk was closed by its size.
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    kind: Kind,
    folder: PathBuf,
    run: RunId,
    bytes_max: u64,
    /// Oldest first. The last one is being written while there is a writer.
    streams: Vec<Stream>,
    writer: Option<Writer>,
    next_order: u64,
    /// For the next record, kept from call to call.
    buffer: Vec<u8>,
    gaps: u64,
}

impl Spool {
    /// Opens the spool of a kind in a home; streams of earlier processes are found again. Blocks: before the
    /// loop starts. The second value is what has to be said.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open(home: &Home, kind: Kind) -> Result<(Spool, Vec<String>), Error> {
        let bytes_max = bytes_max(kind, home.kind(), memory_bytes());
        Self::open_in(&home.path().join("spool"), &home.run().run, kind, bytes_max)
    }

    /// [`open`](Self::open) in any folder, with any limit in bytes.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn open_in(
        folder: &Path,
        run: &RunId,
        kind: Kind,
        bytes_max: u64,
    ) -> Result<(Spool, Vec<String>), Error> {
        let mut notes = Vec::new();
        let streams = stream::open_all(folder, run, kind, &mut notes)?;
        let next_order = streams.last().map_or(0, |last| last.file.order + 1);
        let inner = Inner {
            kind,
            folder: folder.to_owned(),
            run: run.clone(),
            bytes_max,
            streams,
            writer: None,
            next_order,
            buffer: Vec::new(),
            gaps: 0,
        };
        let spool = Spool { kind, inner: Arc::new(Mutex::new(inner)), shared: Arc::default() };
        spool.locked(|_| ());
        Ok((spool, notes))
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Counts that are true as of the last call that touched the disk. Never waits for the disk.
    pub fn status(&self) -> SpoolStatus {
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.lost_items += self.shared.lost.items.load(Ordering::Relaxed);
        status
    }

    /// Waits until something may have to be sent. For one waiter.
    pub async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// Puts a line into the spool. When this returns `Ok` the line survives the end of the process. A text
    /// over the limit is cut at a character's edge and says how much was cut. Blocks: for plain threads.
    ///
    /// # Errors
    /// The line is not there; it is counted, and the next chunk says so.
    pub fn append_line(&self, line: &LogLine) -> Result<(), SpoolError> {
        self.append_line_at(line, Instant::now())
    }

    /// [`append_line`](Self::append_line) at a moment of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn append_line_at(&self, line: &LogLine, now: Instant) -> Result<(), SpoolError> {
        let cut = cut_line(line);
        let line = cut.as_ref().unwrap_or(line);
        let weight = Weight { items: 1, text_bytes: line.text.len() };
        self.append(weight, now, |buffer| {
            serde_json::to_writer(buffer, line).expect("a line of log can be written as JSON");
        })
    }

    /// Puts readings into the spool; those that are not finite are left out. Blocks: for plain threads.
    ///
    /// # Errors
    /// As [`append_line`](Self::append_line).
    pub fn append_samples(&self, samples: &[SensorSample]) -> Result<(), SpoolError> {
        self.append_samples_at(samples, Instant::now())
    }

    /// [`append_samples`](Self::append_samples) at a moment of the caller's.
    ///
    /// # Errors
    /// As there.
    pub fn append_samples_at(&self, samples: &[SensorSample], now: Instant) -> Result<(), SpoolError> {
        let finite: Vec<&SensorSample> = samples.iter().filter(|sample| sample.value.is_finite()).collect();
        for batch in finite.chunks(SENSOR_SAMPLES_MAX) {
            let text_bytes = batch.iter().map(|sample| sample.key.len() + 64).sum();
            self.append(Weight { items: batch.len(), text_bytes }, now, |buffer| {
                for (at, sample) in batch.iter().enumerate() {
                    if at > 0 {
                        buffer.push(b',');
                    }
                    serde_json::to_writer(&mut *buffer, sample)
                        .expect("a finite reading can be written as JSON");
                }
            })?;
        }
        Ok(())
    }

    /// Closes the stream: what comes after this is a new one. For an ordered stop. Everything that was appended
    /// before is acknowledged once no stream is left whose number is below the one returned.
    pub fn finish(&self) -> u64 {
        self.locked(|inner| {
            // Where this fails it stays counted and is in the status.
            let _counted = inner.tell_lost(Instant::now(), &self.shared.lost);
            inner.finish();
            inner.next_order
        })
    }

    /// Makes what was appended outlive a power cut, and remembers what was acknowledged.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sync(&self) -> Result<(), Error> {
        // Not under the lock: a slow sync must not hold up who appends.
        let unsynced = self.locked(|inner| inner.take_unsynced());
        for path in &unsynced {
            match std::fs::File::open(path).and_then(|file| file.sync_data()) {
                // Acknowledged and removed meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(crate::files::io_error("syncing", path))?,
            }
        }
        self.locked(Inner::store_acknowledged)
    }

    fn append(
        &self,
        weight: Weight,
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), SpoolError> {
        let (result, wake) = self.locked(|inner| {
            let had_open = inner.has_open_chunk();
            let seq = inner.writer.as_ref().map(Writer::seq);
            let result = inner.append(weight, now, &self.shared.lost, fill);
            let closed = inner.writer.as_ref().map(Writer::seq) != seq;
            (result, closed || !had_open)
        });
        if wake {
            self.shared.wake.notify_one();
        }
        result
    }

    /// Runs something under the lock and notes what the spool then holds.
    fn locked<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // A panic in between leaves files that opening them anew would find too: records are whole.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let value = work(&mut inner);
        let status = inner.status();
        drop(inner);
        let mut shown = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = status;
        value
    }
}

/// The line cut to its limit, where it is over it. The note on the cut fits into the limit.
fn cut_line(line: &LogLine) -> Option<LogLine> {
    if line.text.len() <= LOG_LINE_BYTES_MAX {
        return None;
    }
    const NOTE_BYTES: usize = 48;
    let at_edge = |at: &usize| line.text.is_char_boundary(*at);
    let edge = (0..=LOG_LINE_BYTES_MAX - NOTE_BYTES).rev().find(at_edge).expect("0 is an edge");
    let mut text = line.text[..edge].to_owned();
    text.push_str(&format!(" [{} bytes cut]", line.text.len() - edge));
    Some(LogLine { text, ..line.clone() })
}

/// Puts lines into a spool from the loop, which must not wait for a disk: through the I/O thread, and where
/// that is too far behind, into the count of what was lost.
#[derive(Debug, Clone)]
pub struct LineSender {
    spool: Spool,
    io: IoThread,
}

impl LineSender {
    /// A sender into a spool.
    pub fn new(spool: Spool, io: IoThread) -> LineSender {
        LineSender { spool, io }
    }

    /// Hands a line over. What becomes of it is in the spool's status.
    pub fn send_line(&self, line: LogLine) {
        let (spool, health, bytes) = (self.spool.clone(), self.io.health().clone(), line.text.len());
        let append = move || {
            if let Err(error) = spool.append_line(&line) {
                health.fail(crate::errors::chain(&error));
            }
        };
        if !self.io.post(append) {
            self.spool.shared.lost.add(1, bytes);
        }
    }
}

/// How long a chunk stays open.
const CHUNK_AGE: Duration = Duration::from_millis(LOG_CHUNK_AGE_MS);
/// Text in one chunk.
const CHUNK_TEXT_BYTES_MAX: usize = LOG_CHUNK_BYTES;

#[cfg(test)]
pub(crate) mod tests;
