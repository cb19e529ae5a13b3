//! Small conversions between what is stored and what it means.

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

/// Packs a document for its column.
pub(super) fn pack(doc: &str) -> Vec<u8> {
    zstd::bulk::compress(doc.as_bytes(), PACK_LEVEL).expect("zstd packs any bytes into memory")
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
    let bytes = zstd::bulk::decompress(packed, size).map_err(|error| unreadable(error.to_string()))?;
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
