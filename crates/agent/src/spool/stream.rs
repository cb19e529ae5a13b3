//! One stream: its folder, what `stream.json` says of it, and its segments.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use groundcrew_durable::whole::{create_folder, sweep_leftovers};
use groundcrew_durable::{Error, Result, fault};
use groundcrew_protocol::ids::{RandomId, RunId};
use groundcrew_protocol::order;
use groundcrew_protocol::wire::LogGap;
use serde::{Deserialize, Serialize};

use super::Kind;
use super::chunk::merge;
use super::segment::{self, Hint, Segment, path_of};
use crate::files::{io_error, move_into, names_in, read_json, sync_folder, write_json};
use crate::points;

/// Gaps in front of different chunks merge where they meet; a refusal of every second chunk makes many.
const STREAM_FILE_BYTES_MAX: u64 = 1 << 20;
/// Gaps that are kept apart. Over it the newest two become one.
const GAPS_MAX: usize = 1_000;

/// What is missing in front of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    /// The chunk that follows it.
    pub(super) before: u64,
    /// What is missing.
    #[serde(flatten)]
    pub(super) gap: LogGap,
}

/// From some chunk on the stream goes by another id, counted from 0: the orchestrator has something else under
/// the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alias {
    pub(super) from: u64,
    pub(super) stream: RandomId,
}

/// `stream.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StreamFile {
    pub(super) run: RunId,
    pub(super) stream: RandomId,
    /// Greater for a later one.
    pub(super) order: u64,
    /// Every chunk in front of this one is acknowledged. May lag: a chunk sent again is answered `repeated`.
    #[serde(default)]
    pub(super) acknowledged: u64,
    #[serde(default)]
    pub(super) gaps: Vec<Gap>,
    #[serde(default)]
    pub(super) aliases: Vec<Alias>,
    /// The closing mark is acknowledged: only the folder is left to remove.
    #[serde(default)]
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) folder: PathBuf,
    pub(super) file: StreamFile,
    pub(super) segments: VecDeque<Segment>,
    /// Segments that were written to since the last sync.
    pub(super) unsynced: Vec<u32>,
    /// `file` is ahead of the disk.
    pub(super) is_dirty: bool,
    /// This process made it, so that no power cut has taken anything from it.
    pub(super) is_ours: bool,
    pub(super) hint: Option<Hint>,
}

impl Stream {
    /// Makes a stream with its folder.
    pub(super) fn create(
        parent: &Path,
        kind: Kind,
        run: &RunId,
        stream: RandomId,
        order: u64,
    ) -> Result<Stream> {
        let folder = parent.join(format!("{}-{stream}", kind.as_str()));
        create_folder(&folder, 0o700)?;
        let run = run.clone();
        let file = StreamFile {
            run,
            stream,
            order,
            acknowledged: 0,
            gaps: Vec::new(),
            aliases: Vec::new(),
            closed: false,
        };
        let mut stream = Stream { is_ours: true, ..Stream::over(folder, file) };
        stream.store()?;
        Ok(stream)
    }

    fn over(folder: PathBuf, file: StreamFile) -> Stream {
        let segments = VecDeque::new();
        Stream { folder, file, segments, unsynced: Vec::new(), is_dirty: false, is_ours: false, hint: None }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Closed chunks that are not acknowledged.
    pub(super) fn unsent_chunks(&self) -> u64 {
        let unsent =
            |segment: &Segment| segment.next.saturating_sub(segment.first.max(self.file.acknowledged));
        self.segments.iter().map(unsent).sum()
    }

    /// Whether the disk is behind what was appended or acknowledged.
    pub(super) fn is_unsynced(&self) -> bool {
        self.is_dirty || !self.unsynced.is_empty()
    }

    /// Remembers durably what `file` says.
    pub(super) fn store(&mut self) -> Result<()> {
        write_json(&self.folder.join("stream.json"), &self.file)?;
        self.is_dirty = false;
        Ok(())
    }

    /// What is missing in front of a chunk that is about to be sent: everything since the last one.
    pub(super) fn gap_before(&self, seq: u64) -> Option<LogGap> {
        let before = self.file.gaps.iter().filter(|gap| gap.before <= seq);
        before.fold(None, |sum, gap| Some(merge(sum, gap.gap.clone())))
    }

    /// Notes that the chunks from `first` up to `before` are missing.
    pub(super) fn add_gap(&mut self, first: u64, before: u64, bytes: u64, why: &str) {
        let gap = LogGap { chunks: before - first, bytes, why: why.to_owned() };
        let full = self.file.gaps.len() >= GAPS_MAX;
        match self.file.gaps.iter_mut().find(|known| known.before == first) {
            Some(known) => {
                known.before = before;
                known.gap = merge(Some(known.gap.clone()), gap);
            }
            None if full => {
                let last = self.file.gaps.last_mut().expect("there are many");
                last.before = last.before.max(before);
                last.gap = merge(Some(last.gap.clone()), gap);
            }
            None => self.file.gaps.push(Gap { before, gap }),
        }
        self.is_dirty = true;
    }

    /// The number behind the last chunk that this stream ever had.
    pub(super) fn end(&self) -> u64 {
        let segments = self.segments.back().map_or(0, |segment| segment.next);
        let gaps = self.file.gaps.iter().map(|gap| gap.before).max().unwrap_or(0);
        segments.max(gaps).max(self.file.acknowledged)
    }

    /// The id and number under which the orchestrator knows a chunk.
    pub(super) fn known_as(&self, seq: u64) -> (RandomId, u64) {
        match self.file.aliases.iter().rfind(|alias| alias.from <= seq) {
            Some(alias) => (alias.stream.clone(), seq - alias.from),
            None => (self.file.stream.clone(), seq),
        }
    }

    /// Everything in front of `next` is acknowledged. Segments that are done go, except the one being written.
    pub(super) fn acknowledge(&mut self, next: u64, is_written: bool) -> Result<()> {
        self.file.acknowledged = self.file.acknowledged.max(next);
        self.file.gaps.retain(|gap| gap.before >= next);
        self.is_dirty = true;
        let kept = usize::from(is_written);
        while self.segments.len() > kept && self.segments.front().is_some_and(|segment| segment.next <= next)
        {
            if self.is_dirty {
                self.store()?;
                fault::point(points::SPOOL_ACKNOWLEDGED);
            }
            let number = self.segments.front().expect("one is there").number;
            self.remove_segment_file(number)?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Removes a segment's file. Not synced: one that comes back is found to be acknowledged or in a gap.
    pub(super) fn remove_segment_file(&self, number: u32) -> Result<()> {
        let path = path_of(&self.folder, number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("removing", &path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the whole stream, `stream.json` last, so that what a crash leaves is still known to be closed.
    pub(super) fn remove(mut self) -> Result<()> {
        self.file.closed = true;
        self.store()?;
        fault::point(points::SPOOL_CLOSED);
        for name in names_in(&self.folder)? {
            if name != "stream.json" {
                let path = self.folder.join(name);
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        remove_with_description(&self.folder)
    }
}

fn remove_with_description(folder: &Path) -> Result<()> {
    let description = folder.join("stream.json");
    match fs::remove_file(&description) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("removing", &description)(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::remove_dir(folder).map_err(io_error("removing the folder", folder))?;
    sync_folder(folder.parent().expect("a stream's folder lies in the spool"))
}

/// Finds the streams of a kind that earlier processes left, oldest first.
pub(super) fn open_all(
    folder: &Path,
    run: &RunId,
    kind: Kind,
    notes: &mut Vec<String>,
) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for name in names_in(folder)? {
        let id =
            name.to_str().and_then(|name| name.strip_prefix(kind.as_str())?.strip_prefix('-')?.parse().ok());
        let Some(id) = id else { continue };
        if let Some(stream) = open_one(&folder.join(&name), id, run, notes)? {
            streams.push(stream);
        }
    }
    order::sort_by_key(&mut streams, |stream| stream.file.order);
    Ok(streams)
}

fn open_one(folder: &Path, id: RandomId, run: &RunId, notes: &mut Vec<String>) -> Result<Option<Stream>> {
    sweep_leftovers(folder)?;
    let path = folder.join("stream.json");
    // Without its description all of it is sent again; what is known already is answered `repeated`.
    let file = read_json::<StreamFile>(&path, STREAM_FILE_BYTES_MAX, notes)?.unwrap_or_else(|| StreamFile {
        run: run.clone(),
        stream: id,
        order: 0,
        acknowledged: 0,
        gaps: Vec::new(),
        aliases: Vec::new(),
        closed: false,
    });
    if file.run != *run {
        let home = folder.parent().and_then(Path::parent).expect("a stream lies in the spool of a home");
        let aside = home.join("runs").join(file.run.as_str());
        create_folder(&aside, 0o700)?;
        let moved = move_into(folder, &aside)?;
        notes.push(format!("a spool of run {} is now {}", file.run, moved.display()));
        return Ok(None);
    }
    let mut stream = Stream::over(folder.to_owned(), file);
    if stream.file.closed {
        stream.remove()?;
        return Ok(None);
    }
    scan_segments(&mut stream, notes)?;
    Ok(Some(stream))
}

fn scan_segments(stream: &mut Stream, notes: &mut Vec<String>) -> Result<()> {
    for name in names_in(&stream.folder)? {
        let Some(number) = name.to_str().and_then(segment::number_of) else { continue };
        let Some(found) = segment::scan(&stream.folder, number)? else {
            stream.remove_segment_file(number)?;
            continue;
        };
        let in_gap =
            |gap: &Gap| gap.before.saturating_sub(gap.gap.chunks) <= found.first && found.next <= gap.before;
        let is_dropped = stream.file.gaps.iter().any(in_gap);
        let is_acknowledged = found.next <= stream.file.acknowledged && found.damaged_bytes == 0;
        if is_dropped || is_acknowledged {
            // It was to be removed when the process ended.
            stream.remove_segment_file(number)?;
            continue;
        }
        note_missing(stream, &found, notes);
        // The process that wrote it may have ended before its next sync.
        stream.unsynced.push(number);
        stream.segments.push_back(found);
    }
    Ok(())
}

/// Notes what is missing between a segment and the one before, and what damage in this one costs.
fn note_missing(stream: &mut Stream, found: &Segment, notes: &mut Vec<String>) {
    let behind = stream.segments.back().map(|last| last.next);
    if let Some(behind) = behind.filter(|behind| *behind < found.first) {
        let is_known = stream.file.gaps.iter().any(|gap| gap.before == found.first);
        if !is_known {
            stream.add_gap(behind, found.first, 0, "lost in a power cut");
        }
    }
    if found.damaged_bytes > 0 {
        let path = path_of(&stream.folder, found.number);
        notes.push(format!(
            "{} is damaged; {} bytes of it cannot be read",
            path.display(),
            found.damaged_bytes
        ));
        let is_known = stream.file.gaps.iter().any(|gap| gap.before == found.next);
        if !is_known {
            stream.add_gap(found.next, found.next, found.damaged_bytes, "damaged on the disk");
        }
    }
}

/// [`Error`] where the system has no random numbers.
pub(super) fn random_stream_id(folder: &Path) -> Result<RandomId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Io {
        doing: "drawing a random id for a stream in",
        path: folder.to_owned(),
        source: io::Error::other(error.to_string()),
    })?;
    Ok(RandomId::from_bytes(bytes))
}
