//! An answer that is taken part by part, from any byte on: for what is too large to be held, as a package.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use crate::connect::Connection;
use crate::error::Error;

/// Something large on its way. Dropping it closes its connection.
pub struct Download {
    call: String,
    _connection: Connection,
    body: Incoming,
    range: Range,
}

/// What of a whole an answer brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u64,
    whole: u64,
}

impl Download {
    /// Reads the head of an answer that succeeded, to a question for all from `asked` on.
    pub(crate) fn new(
        call: String,
        connection: Connection,
        response: http::Response<Incoming>,
        asked: u64,
    ) -> Result<Download, Error> {
        let (head, body) = response.into_parts();
        match range(head.status, &head.headers, body.size_hint().exact(), asked) {
            Ok(range) => Ok(Download { call, _connection: connection, body, range }),
            Err(found) => Err(Error::OtherPart { call, asked, found }),
        }
    }

    /// The first byte that comes: the one that was asked for, or 0 where the server gives all of it.
    pub fn from(&self) -> u64 {
        self.range.from
    }

    /// Bytes of the whole, also of what does not come.
    pub fn whole(&self) -> u64 {
        self.range.whole
    }

    /// The next bytes; `None` once all have come.
    ///
    /// # Errors
    /// [`Error::Timeout`] where nothing came for `silence_max`; [`Error::Broken`] where the connection ends before all of
    /// it has come.
    pub async fn next(&mut self, silence_max: Duration) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(silence_max, self.body.frame()).await.map_err(|_| Error::Timeout {
                call: self.call.clone(),
                after_ms: silence_max.as_millis() as u64,
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|source| Error::Broken { call: self.call.clone(), source })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

/// What an answer brings (RFC 9110, sections 14.4 and 15.3.7), or what it says instead.
fn range(status: StatusCode, headers: &HeaderMap, bytes: Option<u64>, asked: u64) -> Result<Range, String> {
    let bytes = bytes.ok_or("an answer that does not say its length")?;
    match status {
        StatusCode::OK => Ok(Range { from: 0, whole: bytes }),
        StatusCode::PARTIAL_CONTENT => {
            let said = headers.get(CONTENT_RANGE).and_then(|text| text.to_str().ok()).unwrap_or_default();
            let expected = asked.checked_add(bytes).filter(|_| bytes > 0);
            let is_rest =
                expected.is_some_and(|whole| said == format!("bytes {asked}-{}/{whole}", whole - 1));
            let whole = expected.filter(|_| is_rest);
            whole.map(|whole| Range { from: asked, whole }).ok_or_else(|| format!("{bytes} bytes, {said:?}"))
        }
        other => Err(format!("the status {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, said: &str, bytes: Option<u64>, asked: u64) -> Result<(u64, u64), String> {
        let headers = HeaderMap::from_iter([(CONTENT_RANGE, said.parse().unwrap())]);
        let range = range(StatusCode::from_u16(status).unwrap(), &headers, bytes, asked)?;
        Ok((range.from, range.whole))
    }

    #[test]
    fn an_answer_brings_all_or_the_rest_that_was_asked_for_and_nothing_else() {
        assert_eq!(of(200, "", Some(9), 0), Ok((0, 9)));
        assert_eq!(of(200, "", Some(9), 4), Ok((0, 9)));
        assert_eq!(of(206, "bytes 4-8/9", Some(5), 4), Ok((4, 9)));
        for (status, said, bytes, asked) in [
            (200, "", None, 0),
            (204, "", Some(0), 0),
            (206, "", Some(5), 4),
            (206, "bytes 3-8/9", Some(6), 4),
            (206, "bytes 4-7/9", Some(4), 4),
            (206, "bytes 4-8/9", Some(4), 4),
            (206, "bytes 4-8/*", Some(5), 4),
            (206, "bytes 9-8/9", Some(0), 9),
            (206, "bytes 4-8/9", Some(u64::MAX), 4),
        ] {
            assert!(of(status, said, bytes, asked).is_err(), "{status} {said} {bytes:?} {asked}");
        }
    }
}
