//! The log writer: one thread that appends to segment files.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::admit::{Key, admit, key_of};
use super::frame::Packed;
use super::index::{self, LogRowsJob};
use crate::store::writer::{Job, WriterHandle};
use crate::store::{StoreError, Taken};

/// First bytes of every segment: names the format.
const MAGIC: &[u8; 8] = b"GCLOGS01";
/// A segment that holds this much is followed by a new one: retention takes segments away as a whole.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Chunks of one sync. Sixteen values each in one statement stay well under SQLite's 32,766.
const GROUP_MAX: usize = 256;
/// Chunks that may wait; what they may hold together is bounded before they come here.
const JOBS_MAX: usize = 512;
/// How the name of a segment ends.
const ENDING: &str = "seg";

/// What the log writer is asked for.
pub(in crate::store) enum LogJob {
    /// Store a chunk.
    Append(Box<Appending>),
    /// Remove the segments that no row names.
    Reclaim(oneshot::Sender<Result<Reclaimed, StoreError>>),
    /// End after what was handed in before.
    Close(oneshot::Sender<()>),
}

/// A chunk and who waits for it.
pub(in crate::store) struct Appending {
    /// The chunk.
    pub packed: Packed,
    /// Answers its caller.
    pub reply: oneshot::Sender<Result<Taken, StoreError>>,
}

/// Where the data of a chunk is.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Segments that were removed.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Reclaimed {
    /// How many.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Path of a segment.
pub(in crate::store) fn path_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment}.{ENDING}"))
}

/// Segments in a folder, by number.
pub(in crate::store) fn list(folder: &Path) -> Result<Vec<(u64, u64)>, StoreError> {
    let failed = |error| StoreError::file("reading", folder)(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|ending| ending == ENDING)) {
            found.push((number, entry.metadata().map_err(failed)?.len()));
        }
    }
    Ok(found)
}

/// Starts the log writer's thread.
pub(in crate::store) fn start(
    folder: PathBuf,
    reader: SqliteConnection,
    writer: WriterHandle,
) -> Result<mpsc::Sender<LogJob>, StoreError> {
    groundcrew_durable::whole::create_folder(&folder, 0o700)
        .map_err(|error| StoreError::file("making", &folder)(io::Error::other(error)))?;
    // Always a new one: after a crash the last segment may end in bytes that no row names.
    let highest = list(&folder)?.into_iter().map(|(number, _bytes)| number).max().unwrap_or(0);
    let segments = Segments { next: highest + 1, folder: folder.clone(), current: None };
    let (jobs, handed_in) = mpsc::channel(JOBS_MAX);
    let thread = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let log_writer = LogWriter { segments, reader, writer };
        std::thread::Builder::new()
            .name("store-logs".into())
            .spawn(move || runtime.block_on(log_writer.run_log_writer(handed_in)))?;
        Ok(())
    };
    thread().map_err(StoreError::file("starting the log writer of", &folder))?;
    Ok(jobs)
}

struct LogWriter {
    segments: Segments,
    reader: SqliteConnection,
    writer: WriterHandle,
}

impl LogWriter {
    async fn run_log_writer(mut self, mut jobs: mpsc::Receiver<LogJob>) {
        let mut waiting = Vec::with_capacity(GROUP_MAX);
        let mut closing = None;
        while jobs.recv_many(&mut waiting, GROUP_MAX).await > 0 {
            let mut group = Vec::with_capacity(waiting.len());
            let mut reclaims = Vec::new();
            for job in waiting.drain(..) {
                match job {
                    LogJob::Append(appending) => group.push(*appending),
                    LogJob::Reclaim(reply) => reclaims.push(reply),
                    LogJob::Close(reply) => {
                        jobs.close();
                        closing = Some(reply);
                    }
                }
            }
            self.append(group).await;
            for reply in reclaims {
                let _gone = reply.send(self.reclaim().await);
            }
        }
        if let Err(failed) = self.reader.close().await {
            error!(error = %failed, "closing the log writer's connection");
        }
        drop(self.writer);
        if let Some(reply) = closing {
            let _gone = reply.send(());
        }
    }

    /// Data, then rows, then answers.
    async fn append(&mut self, group: Vec<Appending>) {
        if group.is_empty() {
            return;
        }
        let keys: Vec<Option<Key>> = group.iter().map(|one| key_of(&one.packed.chunk)).collect();
        let asked: Vec<Key> = keys.iter().flatten().cloned().collect();
        let mut known = match index::stored(&mut self.reader, &asked).await {
            Ok(known) => known,
            Err(failed) => return answer_all(group.into_iter().map(|one| one.reply), &Err(failed)),
        };
        let hashes = group.iter().map(|one| one.packed.sha256);
        let taken = admit(keys.into_iter().zip(hashes), &mut known);
        let mut new = Vec::new();
        let mut first = Vec::new();
        let mut others = Vec::new();
        for (Appending { packed, reply }, taken) in group.into_iter().zip(taken) {
            match taken {
                Taken::First => {
                    new.push(packed);
                    first.push(reply);
                }
                Taken::Repeated | Taken::OtherContent => others.push((taken, reply)),
            }
        }
        let stored = self.store(new).await;
        // One that repeats another of its group stands and falls with it.
        for (taken, reply) in others {
            let _gone = reply.send(stored.clone().map(|()| taken));
        }
        answer_all(first.into_iter(), &stored.map(|()| Taken::First));
    }

    async fn store(&mut self, new: Vec<Packed>) -> Result<(), StoreError> {
        if new.is_empty() {
            return Ok(());
        }
        let places = self.segments.append(new.iter().map(|packed| &packed.frame[..]))?;
        let (reply, answered) = oneshot::channel();
        let rows = new.into_iter().zip(places).collect();
        self.writer.send(Job::LogRows(LogRowsJob { rows, reply })).await?;
        answered.await.map_err(|_dropped| StoreError::Closed)?
    }

    /// Removes segments that no row names. No row can be under way: this thread sends them, and waits.
    async fn reclaim(&mut self) -> Result<Reclaimed, StoreError> {
        let named: Vec<i64> = sqlx::query_scalar("SELECT DISTINCT segment FROM log_chunks")
            .fetch_all(&mut self.reader)
            .await
            .map_err(StoreError::database("looking for segments in use"))?;
        let named: HashSet<u64> = named.into_iter().map(crate::store::text::unsigned).collect();
        let mut reclaimed = Reclaimed::default();
        for (number, bytes) in list(&self.segments.folder)? {
            if named.contains(&number) {
                continue;
            }
            if self.segments.current.as_ref().is_some_and(|current| current.number == number) {
                self.segments.current = None;
            }
            let path = path_of(&self.segments.folder, number);
            std::fs::remove_file(&path).map_err(StoreError::file("removing", &path))?;
            reclaimed.segments += 1;
            reclaimed.bytes += bytes;
        }
        let unnamed = "DELETE FROM segments WHERE id NOT IN (SELECT segment FROM log_chunks)";
        self.writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query(unnamed)
                        .execute(connection)
                        .await
                        .map(|_done| ())
                        .map_err(StoreError::database("deleting rows of segments"))
                })
            })
            .await?;
        Ok(reclaimed)
    }
}

fn answer_all(
    replies: impl Iterator<Item = oneshot::Sender<Result<Taken, StoreError>>>,
    outcome: &Result<Taken, StoreError>,
) {
    for reply in replies {
        let _gone = reply.send(outcome.clone());
    }
}

struct Segments {
    folder: PathBuf,
    current: Option<Current>,
    next: u64,
}

struct Current {
    number: u64,
    file: File,
    bytes: u64,
}

impl Segments {
    /// Appends frames to one segment and syncs once.
    fn append<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::new();
        let mut data = Vec::new();
        let folder = self.folder.clone();
        let current = self.current()?;
        for frame in frames {
            let offset = current.bytes + data.len() as u64;
            places.push(Place { segment: current.number, offset, length: frame.len() as u64 });
            data.extend_from_slice(frame);
        }
        let written = current.file.write_all_at(&data, current.bytes).and_then(|()| current.file.sync_data());
        match written {
            Ok(()) => {
                current.bytes += data.len() as u64;
                Ok(places)
            }
            Err(failed) => {
                // What of it is on the disk is unknown: nothing more goes into this segment.
                let path = path_of(&folder, current.number);
                self.current = None;
                Err(StoreError::file("appending to", &path)(failed))
            }
        }
    }

    fn current(&mut self) -> Result<&mut Current, StoreError> {
        if self.current.as_ref().is_some_and(|current| current.bytes >= SEGMENT_BYTES_MAX) {
            self.current = None;
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => self.begin()?,
        };
        Ok(self.current.insert(current))
    }

    fn begin(&mut self) -> Result<Current, StoreError> {
        let number = self.next;
        self.next += 1;
        let path = path_of(&self.folder, number);
        let make = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all_at(MAGIC, 0)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(StoreError::file("making", &path))?;
        Ok(Current { number, file, bytes: MAGIC.len() as u64 })
    }
}
