//! Requests as bytes.

use std::io::Write;

/// Who asks whom: what every request of a caller has in common.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The `Host` header.
    pub host: String,
    /// The bearer token.
    pub token: String,
}

impl Caller {
    /// Writes a request with a JSON body in place of what `into` held.
    pub fn write(&self, into: &mut Vec<u8>, method: &str, path: &str, body: &[u8]) {
        self.write_typed(into, method, path, "application/json", body);
    }

    /// Writes a request with a body of any type.
    pub fn write_typed(&self, into: &mut Vec<u8>, method: &str, path: &str, kind: &str, body: &[u8]) {
        let Caller { host, token } = self;
        let length = body.len();
        into.clear();
        write!(
            into,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        )
        .expect("writing to memory does not fail");
        into.extend_from_slice(body);
    }

    /// A request with a JSON body.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes, method, path, body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_its_length_and_whose_it_is() {
        let caller = Caller { host: "127.0.0.1:1".to_owned(), token: "gcr_x".to_owned() };
        let text = String::from_utf8(caller.request("POST", "/a", b"{\"a\":1}")).unwrap();
        assert!(text.starts_with("POST /a HTTP/1.1\r\nhost: 127.0.0.1:1\r\n"), "{text}");
        assert!(text.contains("\r\nauthorization: Bearer gcr_x\r\n"), "{text}");
        assert!(text.ends_with("\r\ncontent-length: 7\r\n\r\n{\"a\":1}"), "{text}");
    }
}
