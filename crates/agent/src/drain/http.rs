//! One request and one answer of HTTP/1.1 on a connection, as small as the agent's local endpoint needs it. Pure: bytes in,
//! bytes out; who may ask is for [`super::endpoint`].

use httparse::{EMPTY_HEADER, Status};

/// Longest request, head and body together: both are a few hundred bytes.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Header fields of a request; a curious client sends a dozen.
const HEADERS_MAX: usize = 32;

/// A request, as far as anybody here wants to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST` or another.
    pub method: String,
    /// Its path, without a query.
    pub path: String,
    /// What stands behind `Bearer`; absent where nothing does.
    pub bearer: Option<Vec<u8>>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What a beginning of a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// More is to come.
    More,
    /// It is whole.
    Whole(Request),
    /// It is none that is answered here: status and why.
    Bad(u16, &'static str),
}

/// Reads a request from the bytes that have come so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let over = bytes.len() >= REQUEST_BYTES_MAX;
    let body_at = match head.parse(bytes) {
        Ok(Status::Complete(at)) => at,
        Ok(Status::Partial) if over => return Parsed::Bad(413, "the request is longer than 16 KiB"),
        Ok(Status::Partial) => return Parsed::More,
        Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431, "more than 32 header fields"),
        Err(_) => return Parsed::Bad(400, "found no HTTP/1.1 request"),
    };
    let values = |name: &str| {
        let named = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect::<Vec<_>>()
    };
    if !values("transfer-encoding").is_empty() {
        return Parsed::Bad(411, "found transfer-encoding, expected content-length");
    }
    let length = match values("content-length")[..] {
        [] => 0,
        [one] => match str::from_utf8(one).ok().and_then(|text| text.parse::<usize>().ok()) {
            Some(length) => length,
            None => return Parsed::Bad(400, "found a content-length that is no number"),
        },
        [..] => return Parsed::Bad(400, "found more than one content-length"),
    };
    if length > REQUEST_BYTES_MAX - body_at.min(REQUEST_BYTES_MAX) {
        return Parsed::Bad(413, "the request is longer than 16 KiB");
    }
    let Some(body) = bytes.get(body_at..body_at + length) else { return Parsed::More };
    let bearer = match values("authorization")[..] {
        [one] => bearer_of(one).map(<[u8]>::to_vec),
        [..] => None,
    };
    Parsed::Whole(Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned(),
        bearer,
        body: body.to_vec(),
    })
}

fn bearer_of(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// An answer with a JSON body, after which the connection is closed.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let challenge = if status == 401 { "www-authenticate: Bearer\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{challenge}\
         connection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Status and body of an answer; `None` where the bytes are none.
pub fn parse_answer(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(Status::Complete(at)) = head.parse(bytes) else { return None };
    Some((head.code?, &bytes[at..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POST: &str = "POST /api/gateway/drain?x=1 HTTP/1.1\r\nHost: a\r\nauthorization: bearer  s3 \r\n\
                        Content-Length: 2\r\n\r\n{}";

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_once_it_is_whole() {
        for end in 0..POST.len() {
            assert_eq!(parse(&POST.as_bytes()[..end]), Parsed::More, "{end}");
        }
        let request = whole(POST);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/gateway/drain"));
        assert_eq!((request.bearer.as_deref(), request.body.as_slice()), (Some(&b"s3"[..]), &b"{}"[..]));
        assert_eq!(whole("GET / HTTP/1.1\r\n\r\n").bearer, None);
        assert_eq!(whole("GET / HTTP/1.1\r\nAuthorization: Basic eA==\r\n\r\n").bearer, None);
    }

    #[test]
    fn what_is_no_request_or_too_long_is_refused() {
        let long = format!("GET / HTTP/1.1\r\na: {}", "x".repeat(REQUEST_BYTES_MAX));
        let cases = [
            ("\x16\x03\x01", 400),
            ("GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("POST / HTTP/1.1\r\nContent-Length: 999999\r\n\r\n", 413),
            (&long, 413),
        ];
        for (text, status) in cases {
            let parsed = parse(text.as_bytes());
            assert!(matches!(parsed, Parsed::Bad(found, _) if found == status), "{parsed:?}");
        }
    }

    #[test]
    fn an_answer_is_read_back() {
        assert_eq!(parse_answer(&answer(401, "{}")), Some((401, &b"{}"[..])));
        assert_eq!(parse_answer(b"HTTP/1.1 200"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            parse_answer(&bytes);
        }
    }
}
