//! A reader that gives no more than was allowed.
//!
//! The tar reader keeps a long name, however long, in memory, and what is packed says nothing of how much it unpacks to: so
//! every part of an archive is read under an allowance of its own.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// What may still be read, shared with the reader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Rc<State>);

#[derive(Debug, Default)]
struct State {
    left: Cell<u64>,
    is_over: Cell<bool>,
    is_at_end: Cell<bool>,
}

impl Meter {
    /// Allows so many bytes from now on, whatever was left.
    pub(crate) fn allow(&self, bytes: u64) {
        self.0.left.set(bytes);
    }

    /// True once more was asked for than was allowed.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.get()
    }

    /// True once the source had no more to give.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_at_end.get()
    }
}

/// A reader under a [`Meter`].
pub(crate) struct Metered<R> {
    pub(crate) from: R,
    pub(crate) meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = &self.meter.0;
        let left = state.left.get();
        if left == 0 && !buffer.is_empty() {
            state.is_over.set(true);
            return Err(io::Error::other("more than is allowed"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.from.read(&mut buffer[..most])?;
        state.left.set(left - read as u64);
        state.is_at_end.set(read == 0 && most > 0);
        Ok(read)
    }
}
