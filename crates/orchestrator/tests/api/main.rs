//! The API over its router and over real sockets, on a real store.

mod audit;
mod auth;
mod bench;
mod bounds;
mod drains;
mod following;
mod packages;
mod run_packages;
mod serving;
mod wire;
