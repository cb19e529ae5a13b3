//! One kept-alive connection over TLS, and the least of HTTP/1.1 that an answer needs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use groundcrew_client::{PinSet, tls_config};
use groundcrew_protocol::ids::Sha256Hex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest head and body of an answer that a benchmark asks for: a page of five hundred pods.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// First size of a connection's buffer; almost every answer fits.
const BUFFER_BYTES: usize = 1024;

/// Opens connections to one server, whose certificate is pinned.
#[derive(Clone)]
pub struct Connector {
    /// Where it listens.
    pub address: SocketAddr,
    tls: TlsConnector,
}

impl Connector {
    /// To the server at `address` with the certificate of this SHA-256.
    pub fn new(address: SocketAddr, fingerprint: Sha256Hex) -> Connector {
        let tls = TlsConnector::from(tls_config(PinSet::new([fingerprint])));
        Connector { address, tls }
    }

    /// Opens a connection and ends the handshake.
    pub async fn open(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        tcp.set_nodelay(true).context("setting TCP_NODELAY")?;
        let name = ServerName::from(self.address.ip());
        let stream = self.tls.connect(name, tcp).await.context("shaking hands")?;
        Ok(Connection { stream, buffer: Vec::new() })
    }
}

/// A connection that is kept alive.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'b> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'b [u8],
}

impl Answer<'_> {
    /// The body of a success; an error that shows status and body otherwise.
    pub fn good(&self) -> Result<&[u8]> {
        let text = String::from_utf8_lossy(self.body);
        ensure!((200..300).contains(&self.status), "answered {}: {text}", self.status);
        Ok(self.body)
    }
}

impl Connection {
    /// Sends a request and waits for its answer.
    pub async fn call(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await.context("sending a request")?;
        self.stream.flush().await.context("sending a request")?;
        self.buffer.clear();
        self.buffer.reserve(BUFFER_BYTES);
        let head = loop {
            self.read_more().await?;
            if let Some(head) = Head::parse(&self.buffer)? {
                break head;
            }
        };
        let end = head.body_begins + head.body_bytes;
        ensure!(
            end <= ANSWER_BYTES_MAX,
            "an answer of {end} bytes, at most {ANSWER_BYTES_MAX} were expected"
        );
        while self.buffer.len() < end {
            self.read_more().await?;
        }
        ensure!(self.buffer.len() == end, "more bytes came than one answer has");
        Ok(Answer { status: head.status, body: &self.buffer[head.body_begins..end] })
    }

    async fn read_more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.buffer).await.context("reading an answer")?;
        ensure!(read > 0, "the server closed the connection in place of an answer");
        ensure!(self.buffer.len() <= ANSWER_BYTES_MAX, "an answer longer than {ANSWER_BYTES_MAX} bytes");
        Ok(())
    }
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    body_begins: usize,
    body_bytes: usize,
}

impl Head {
    /// The head, once it is there as a whole.
    fn parse(bytes: &[u8]) -> Result<Option<Head>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[..end]).context("the head of an answer is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let Some(status) = status else { bail!("an answer begins with {text:?}") };
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
        });
        let body_bytes = match (length, status) {
            (Some(length), _) => length.context("the length of an answer is no number")?,
            (None, 204) => 0,
            (None, _) => bail!("an answer without a length: {text:?}"),
        };
        Ok(Some(Head { status, body_begins: end + 4, body_bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let head = Head::parse(whole).unwrap().unwrap();
        assert_eq!(head, Head { status: 200, body_begins: whole.len() - 2, body_bytes: 2 });
        for cut in 0..whole.len() - 2 {
            assert_eq!(Head::parse(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_be_measured_is_an_error() {
        for bad in [
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert!(Head::parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
        let empty = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((empty.status, empty.body_bytes), (204, 0));
        assert!(Answer { status: 401, body: b"no" }.good().is_err());
    }
}
