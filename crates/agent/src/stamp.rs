//! Now, in the forms in which messages carry it.

use groundcrew_protocol::time::WallMs;

/// Now, as lines of log carry it: RFC 3339 in UTC.
pub fn stamp() -> String {
    jiff::Timestamp::now().to_string()
}

/// Now, as messages carry it.
pub fn wall() -> WallMs {
    WallMs(jiff::Timestamp::now().as_millisecond())
}
