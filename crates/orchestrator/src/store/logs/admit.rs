//! Which chunks are new: decided from their keys and hashes alone.

use std::collections::HashMap;

use groundcrew_protocol::ids::RandomId;

use super::LogChunk;
use crate::store::Taken;

/// What tells one chunk of all runs from another: run, stream and number.
pub type Key = (String, String, i64);
/// What tells the content of one chunk from another's: SHA-256 of lines, gap and closing mark.
pub type Hash = [u8; 32];

/// The key of a chunk; none for one without a stream, whose repetitions cannot be told.
pub fn key_of(chunk: &LogChunk) -> Option<Key> {
    let stream: &RandomId = chunk.stream.as_ref()?;
    let seq = crate::store::text::signed(chunk.seq);
    Some((chunk.run.as_str().to_owned(), stream.as_str().to_owned(), seq))
}

/// How each chunk of a group is taken, in order: the first under a key stands. `known` are the hashes of those that
/// are stored; the new ones of the group are added to it.
pub fn admit(
    group: impl IntoIterator<Item = (Option<Key>, Hash)>,
    known: &mut HashMap<Key, Hash>,
) -> Vec<Taken> {
    let take = |(key, hash): (Option<Key>, Hash)| {
        let Some(key) = key else { return Taken::First };
        match known.get(&key) {
            Some(stored) if *stored == hash => Taken::Repeated,
            Some(_other) => Taken::OtherContent,
            None => {
                known.insert(key, hash);
                Taken::First
            }
        }
    };
    group.into_iter().map(take).collect()
}
