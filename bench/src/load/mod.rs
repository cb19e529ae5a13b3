//! The load generator: connections that ask, wait for the answer and ask again, many at a time on one thread.
//!
//! It shares the processors with what it measures, so it does as little as it can: requests are made of bytes that
//! stand ready, and of an answer it reads the status and the length.

pub mod connection;
pub mod drive;
pub mod request;

pub use connection::{Answer, Connector};
pub use drive::{Lane, Round, Work, run_round};
