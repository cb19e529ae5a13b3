//! What a request carries: bytes that are at hand, or a file that is read as it is sent.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of a file that are read at a time.
const PART_BYTES: usize = 64 * 1024;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Bytes.
    Whole(Full<Bytes>),
    /// The rest of a file: so many bytes, neither fewer nor more. Whoever sends one does nothing else meanwhile, so that a
    /// slow disk may block.
    File {
        /// Read from where it stands.
        file: File,
        /// Bytes that are still to come.
        left: u64,
    },
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Outgoing::Whole(bytes) => {
                let never = |never: Infallible| match never {};
                Pin::new(bytes).poll_frame(context).map(|frame| frame.map(|frame| frame.map_err(never)))
            }
            Outgoing::File { left: 0, .. } => Poll::Ready(None),
            Outgoing::File { file, left } => Poll::Ready(Some(part(file, left).map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Whole(bytes) => bytes.is_end_stream(),
            Outgoing::File { left, .. } => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Whole(bytes) => bytes.size_hint(),
            Outgoing::File { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

fn part(file: &mut File, left: &mut u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(PART_BYTES);
    file.take((PART_BYTES as u64).min(*left)).read_to_end(&mut bytes)?;
    if bytes.is_empty() {
        let why = format!("the file became {left} bytes shorter while it was sent");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    *left -= bytes.len() as u64;
    Ok(bytes.into())
}
