//! The API over its router and over real sockets, on a real store.

mod audit;
mod auth;
mod bench;
mod bounds;
mod cluster;
mod drains;
mod following;
mod holds;
mod kubernetes;
mod manifests;
mod nodes;
mod observing;
mod packages;
mod reboots;
mod rotation;
mod run_packages;
mod serving;
mod unwell;
mod wipes;
mod wire;
