//! Notices to the world outside: which sinks there are ([`sinks`]), what they are told ([`bodies`]), one try to tell one
//! ([`send`]), and what follows a try ([`tries`], pure).
//!
//! A run's document says which notices are due; the task `notices` sends them. Nothing here decides who is told
//! ([`crate::run::notice`]), and nothing here waits for longer than [`send::TRY_MS_MAX`].

pub mod bodies;
pub mod send;
pub mod sinks;
pub mod tries;

use std::collections::HashMap;
use std::sync::Mutex;

use groundcrew_protocol::ids::{RunId, SinkName};

use send::{Sender, TlsRootsError};
use sinks::Sinks;
use tries::Next;

/// A notice of a run, for one sink.
pub type Key = (RunId, u64, SinkName);

/// The sinks, and what was tried so far. What was tried is not kept over a restart: the age of a notice bounds it too.
pub struct Notices {
    /// The sinks of the settings.
    pub sinks: Sinks,
    /// How they are told.
    pub sender: Sender,
    /// This orchestrator's address, for people.
    pub url: String,
    /// What follows for each notice that is not struck off.
    pub next: Mutex<HashMap<Key, Next>>,
}

impl Notices {
    /// For these sinks.
    ///
    /// # Errors
    /// Where one is reached over TLS, and nobody here says which authorities to trust.
    pub fn new(sinks: Sinks, url: String) -> Result<Notices, TlsRootsError> {
        let sender = if sinks.need_tls() { Sender::with_roots_of_system()? } else { Sender::without_tls() };
        Ok(Notices { sinks, sender, url, next: Mutex::default() })
    }
}
