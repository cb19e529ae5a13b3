//! The runs that the writer landed or loaded last, so that a run that changes often is not loaded for every change.
//!
//! Owned by the writer, which is the only one that changes runs: what stands here is what the last commit left. Where
//! that turns out to be wrong (another process wrote, a commit failed, runs were deleted) it is forgotten; the
//! compare-and-set on the version stands behind it in any case.

use std::collections::HashMap;
use std::sync::Arc;

use groundcrew_protocol::ids::RunId;

use super::StoredRun;
use super::unit::Keys;

/// Runs of one generation; two are kept. Twice as many as a commit can hold, so that runs which change in turns stay.
const RUNS_MAX: usize = 512;
/// Bytes of their documents, of one generation.
const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A run as the last commit left it.
#[derive(Debug, Clone)]
pub(super) struct KnownRun {
    /// The run.
    pub run: StoredRun,
    /// The columns that indexes are made of.
    pub keys: Arc<Keys>,
}

/// The runs that were used last. What was not used while a whole generation was is dropped with the one before.
#[derive(Debug, Default)]
pub(super) struct RunCache {
    young: HashMap<RunId, KnownRun>,
    young_bytes: usize,
    old: HashMap<RunId, KnownRun>,
}

impl RunCache {
    /// A run, where it is known.
    pub fn get(&mut self, run: &RunId) -> Option<KnownRun> {
        if let Some(known) = self.young.get(run) {
            return Some(known.clone());
        }
        let known = self.old.remove(run)?;
        self.put(known.clone());
        Some(known)
    }

    /// Takes how a run stands after a commit; nothing where the database must be asked.
    pub fn learn(&mut self, run: &RunId, known: Option<KnownRun>) {
        match known {
            Some(known) => self.put(known),
            None => self.forget(run),
        }
    }

    /// Takes a run as a commit left it.
    pub fn put(&mut self, known: KnownRun) {
        let bytes = known.run.doc.json().len();
        if self.young.len() >= RUNS_MAX || self.young_bytes + bytes > DOCUMENT_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes > DOCUMENT_BYTES_MAX {
            self.forget(&known.run.id);
            return;
        }
        self.old.remove(&known.run.id);
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(known.run.id.clone(), known) {
            self.young_bytes -= before.run.doc.json().len();
        }
    }

    /// Forgets a run: what the database has of it is to be read.
    pub fn forget(&mut self, run: &RunId) {
        self.old.remove(run);
        if let Some(known) = self.young.remove(run) {
            self.young_bytes -= known.run.doc.json().len();
        }
    }

    /// Forgets all runs.
    pub fn clear(&mut self) {
        *self = RunCache::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RunDoc;

    fn known(number: usize, version: u64, bytes: usize) -> KnownRun {
        let id: RunId = format!("r-{number}").parse().unwrap();
        let run = StoredRun { id, version, doc: RunDoc::of("x".repeat(bytes)), restored: false };
        KnownRun { run, keys: Arc::default() }
    }

    fn version(cache: &mut RunCache, number: usize) -> Option<u64> {
        cache.get(&format!("r-{number}").parse().unwrap()).map(|known| known.run.version)
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = RunCache::default();
        cache.put(known(0, 1, 10));
        for number in 1..10 * RUNS_MAX {
            cache.put(known(number, 1, 10));
            assert_eq!(version(&mut cache, 0), Some(1), "run 0 was used all the time");
            assert!(cache.young.len() <= RUNS_MAX && cache.old.len() <= RUNS_MAX);
        }
        assert_eq!(version(&mut cache, 1), None);
        assert_eq!(version(&mut cache, 10 * RUNS_MAX - 1), Some(1));
    }

    #[test]
    fn the_latest_counts_until_it_is_forgotten() {
        let mut cache = RunCache::default();
        cache.put(known(1, 1, 10));
        cache.put(known(1, 2, 30));
        assert_eq!((version(&mut cache, 1), cache.young_bytes), (Some(2), 30));
        cache.forget(&"r-1".parse().unwrap());
        assert_eq!((version(&mut cache, 1), cache.young_bytes), (None, 0));
        cache.put(known(2, 1, 10));
        cache.clear();
        assert_eq!(version(&mut cache, 2), None);
    }

    #[test]
    fn documents_are_bounded_by_their_bytes() {
        let mut cache = RunCache::default();
        let third = DOCUMENT_BYTES_MAX / 3;
        for number in 0..20 {
            cache.put(known(number, 1, third));
            assert!(cache.young_bytes <= DOCUMENT_BYTES_MAX);
            assert!(cache.young.len() + cache.old.len() <= 6);
        }
        cache.put(known(19, 2, DOCUMENT_BYTES_MAX + 1));
        assert_eq!(version(&mut cache, 19), None, "an older version must not be left");
    }
}
