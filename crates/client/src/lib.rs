//! The HTTPS client of the agent and of the operators' tools: JSON over HTTP/1.1 to one orchestrator whose
//! certificate is pinned by its SHA-256.
//!
//! It asks once and says what became of it. When to ask again is its callers' decision; [`Error`] has what
//! they need for that ([`Error::is_retried_quickly`]). It never follows a redirect, keeps no cookies, knows no
//! proxy and trusts no certificate authority.

mod client;
mod connect;
mod crypto;
mod dns;
mod download;
mod error;
mod events;
mod outgoing;
mod pins;
mod resolve;
mod url;

pub use client::Client;
pub use connect::tls_config;
pub use download::Download;
pub use error::Error;
pub use events::{Event, EventStream};
pub use pins::{BadPins, PINS_MAX, PinSet, parse_pins};
pub use resolve::{Names, ResolveError};
pub use url::{BadUrl, BaseUrl};
