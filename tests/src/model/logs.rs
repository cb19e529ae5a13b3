//! The log lines of the model: what is stored of them, and what is known of each.
//!
//! The agent's side is the real spool, on files. The orchestrator's is the real `admit` over real hashes of real
//! request bodies; a store of values stands in for SQLite and segment files. `tests/model.rs` drives the same
//! requests through the real store for some seeds, and compares.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use groundcrew_orchestrator::store::logs::admit::{Hash, Key, admit, key_of};
use groundcrew_orchestrator::store::{LogChunk, Taken};
use groundcrew_protocol::ids::RandomId;

/// Number of a line: they are counted over the whole world.
pub type LineId = usize;
/// Number of a home: a copy has another.
pub type HomeId = usize;

/// A chunk that is stored.
#[derive(Debug)]
pub struct Chunk {
    /// The chunk itself.
    pub chunk: LogChunk,
    /// The home that sent it.
    pub home: HomeId,
    /// Its lines.
    pub lines: Vec<LineId>,
}

/// What is stored of logs. A backup is a clone of it.
#[derive(Debug, Clone, Default)]
pub struct LogStore {
    known: HashMap<Key, Hash>,
    places: HashMap<Key, usize>,
    /// In order of arrival.
    pub chunks: Vec<Arc<Chunk>>,
    /// Chunks of each stream by number.
    streams: BTreeMap<RandomId, BTreeMap<u64, Arc<Chunk>>>,
    /// How often each line is stored.
    stored: Vec<u8>,
    /// The highest line that each home has brought.
    highest: BTreeMap<HomeId, LineId>,
    /// A restore has forgotten chunks. An agent that dies before it has noted what was acknowledged sends some of them
    /// again: from then on order is one of numbers within a stream, not of arrival.
    taken_back: bool,
}

impl LogStore {
    /// How often a line is stored.
    pub fn copies(&self, line: LineId) -> u8 {
        self.stored.get(line).copied().unwrap_or(0)
    }

    /// It is a backup that took the place of what was there.
    pub fn take_back(&mut self) {
        self.taken_back = true;
    }

    /// What is stored under a stream and number.
    pub fn find(&self, chunk: &LogChunk) -> Option<&Chunk> {
        let place = self.places.get(&key_of(chunk)?)?;
        Some(&self.chunks[*place])
    }

    /// Takes a chunk; says what does not hold.
    pub fn take(&mut self, chunk: &LogChunk, home: HomeId, copies_max: &[u8]) -> (Taken, Vec<String>) {
        let mut broken = Vec::new();
        let hash = chunk.content_hash().expect("lines can be written as JSON");
        let taken = admit([(key_of(chunk), hash)], &mut self.known)[0];
        let same = |stored: &Chunk| {
            let (known, new) = (&stored.chunk, chunk);
            known.lines == new.lines && known.gap == new.gap && known.closes == new.closes
        };
        let expected = match self.find(chunk) {
            None => Taken::First,
            Some(stored) if same(stored) => Taken::Repeated,
            Some(_) => Taken::OtherContent,
        };
        if taken != expected {
            broken.push(format!("chunk {} was taken as {taken:?}, expected {expected:?}", chunk.seq));
        }
        if taken == Taken::First {
            self.store(chunk, home, copies_max, &mut broken);
        }
        (taken, broken)
    }

    fn store(&mut self, chunk: &LogChunk, home: HomeId, copies_max: &[u8], broken: &mut Vec<String>) {
        let lines = lines_of(chunk);
        for line in &lines {
            if self.stored.len() <= *line {
                self.stored.resize(*line + 1, 0);
            }
            self.stored[*line] += 1;
            if self.stored[*line] > copies_max[*line] {
                broken.push(format!("line {line} is stored twice"));
            }
            let highest = self.highest.entry(home).or_insert(*line);
            if *line < *highest && !self.taken_back {
                broken.push(format!("line {line} of home {home} is stored behind line {highest}"));
            }
            *highest = (*highest).max(*line);
        }
        if let Some(key) = key_of(chunk) {
            self.places.insert(key, self.chunks.len());
        }
        let stored = Arc::new(Chunk { chunk: chunk.clone(), home, lines });
        self.put_in_stream(&stored, broken);
        self.chunks.push(stored);
    }

    /// Puts a chunk between those of its stream. Its lines come after all before it and before all behind it; and numbers
    /// that are missing before it are told by its gap, never fewer than they are. They may be more: what was on its way
    /// when the agent let it go may have arrived, its answer being lost, and a copy of the home may have used such a number.
    fn put_in_stream(&mut self, new: &Arc<Chunk>, broken: &mut Vec<String>) {
        let stream = new.chunk.stream.clone().expect("the model's agents name their streams");
        let (seq, chunks) = (new.chunk.seq, self.streams.entry(stream).or_default());
        let before = chunks.range(..seq).next_back().map_or(0, |(before, _)| before + 1);
        let told = new.chunk.gap.as_ref().map_or(0, |gap| gap.chunks);
        if told < seq - before && !self.taken_back {
            broken.push(format!("chunks {before} to {seq} are missing, and a gap says {told}"));
        }
        let last = chunks.range(..seq).rev().find_map(|(_, chunk)| chunk.lines.last());
        let next = chunks.range(seq..).find_map(|(_, chunk)| chunk.lines.first());
        let in_order = new.lines.is_sorted()
            && new.lines.first().is_none_or(|first| last.is_none_or(|last| last < first))
            && new.lines.last().is_none_or(|last| next.is_none_or(|next| last < next));
        if !in_order {
            broken.push(format!("chunk {seq} holds lines {:?} between {last:?} and {next:?}", new.lines));
        }
        chunks.insert(seq, new.clone());
    }

    /// Chunks of each stream by number.
    pub fn streams(&self) -> &BTreeMap<RandomId, BTreeMap<u64, Arc<Chunk>>> {
        &self.streams
    }
}

/// The lines that a chunk says it holds.
pub fn lines_of(chunk: &LogChunk) -> Vec<LineId> {
    let number = |text: &str| {
        let digits = text.strip_prefix('L').and_then(|text| text.split(' ').next());
        digits.and_then(|digits| digits.parse().ok()).expect("a line of the model begins with its number")
    };
    chunk.lines.iter().map(|line| number(&line.text)).collect()
}

/// What is known of one line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// The home into which it was written.
    pub home: HomeId,
    /// A power cut came before it was synced: it may be gone.
    pub cut: bool,
    /// So many restores had been when its home was told that it is stored.
    pub acknowledged: Option<u32>,
}

/// What is known of all lines.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By number.
    pub lines: Vec<Line>,
    /// How many homes hold a line: as often it may be stored.
    pub copies: Vec<u8>,
    /// Gaps that a home was told are stored, and how many restores had been.
    pub gaps: Vec<(HomeId, u32)>,
}

impl Ledger {
    /// A new line of a home.
    pub fn add(&mut self, home: HomeId) -> LineId {
        self.lines.push(Line { home, cut: false, acknowledged: None });
        self.copies.push(1);
        self.lines.len() - 1
    }

    /// A home was copied, and with it its lines.
    pub fn copy(&mut self, home: HomeId) {
        for (line, copies) in self.lines.iter().zip(&mut self.copies) {
            if line.home == home {
                *copies = copies.saturating_add(1);
            }
        }
    }
}
