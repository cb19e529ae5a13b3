//! Small conversions between what is stored and what it means.

use std::cell::RefCell;

use super::StoreError;

/// SQLite's integers are signed. No counter of ours comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; a negative number was never stored.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The way back for small counters.
pub(super) fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Parses a name or hash that was stored.
pub(super) fn parse<T>(what: &str, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Reads a stored JSON document.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Writes a JSON document.
pub(super) fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Unreadable { what: what.into(), why: error.to_string() })
}

/// Greatest document that is unpacked: far more than the bounded parts of a run add up to.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Documents are small and often written: the fastest level takes most of what there is to gain.
const PACK_LEVEL: i32 = 1;

/// Room that a thread keeps for packing: more than almost any document needs.
const ROOM_BYTES_KEPT: usize = 64 * 1024;

thread_local! {
    /// A context costs many times what a document does, and so does room for the worst: each thread keeps its own.
    static PACKER: RefCell<(zstd::bulk::Compressor<'static>, Vec<u8>)> = RefCell::new((
        zstd::bulk::Compressor::new(PACK_LEVEL).expect("this level of zstd needs a few hundred kilobytes"),
        Vec::new(),
    ));
    static UNPACKER: RefCell<zstd::bulk::Decompressor<'static>> =
        RefCell::new(zstd::bulk::Decompressor::new().expect("unpacking needs less than packing does"));
}

/// Packs a document for its column.
pub(super) fn pack(doc: &str) -> Vec<u8> {
    PACKER.with_borrow_mut(|(packer, room)| {
        room.clear();
        room.reserve(zstd::zstd_safe::compress_bound(doc.len()));
        packer.compress_to_buffer(doc.as_bytes(), room).expect("zstd packs any bytes into enough room");
        let packed = room.as_slice().to_vec();
        room.shrink_to(ROOM_BYTES_KEPT);
        packed
    })
}

/// Unpacks what [`pack`] made.
pub(super) fn unpack(what: &str, packed: &[u8]) -> Result<String, StoreError> {
    let unreadable = |why: String| StoreError::Unreadable { what: what.into(), why };
    let said = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten();
    let Some(size) =
        said.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= DOCUMENT_BYTES_MAX)
    else {
        return Err(unreadable(format!("it is no document of at most {DOCUMENT_BYTES_MAX} bytes")));
    };
    let unpacked = UNPACKER.with_borrow_mut(|unpacker| unpacker.decompress(packed, size));
    let bytes = unpacked.map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))
}

/// Rows of one part of a list: callers cannot ask for endless ones.
pub(super) fn limit(asked: u32, most: u32) -> i64 {
    i64::from(asked.clamp(1, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_packed_and_unpacked_and_damage_is_an_error() {
        let doc = format!("{{\"a\": \"{}\"}}", "é".repeat(5_000));
        let packed = pack(&doc);
        assert!(packed.len() < doc.len() / 10);
        assert_eq!(unpack("a run", &packed).unwrap(), doc);
        for cut in 0..packed.len() {
            assert!(unpack("a run", &packed[..cut]).is_err(), "{cut} bytes were taken for a document");
        }
        assert!(unpack("a run", doc.as_bytes()).is_err());
    }
}
