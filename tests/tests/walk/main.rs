//! The built binaries over real sockets: one orchestrator, its agents, and a load that lasts as long as a test wants.

mod agents;
mod agents_of_pods;
mod artifacts;
mod browsed;
// The orchestrator's own tests use all of it.
#[path = "../../../crates/orchestrator/tests/api/cluster/mod.rs"]
#[allow(dead_code)]
mod cluster;
mod drain_commands;
mod drain_hooks;
mod drain_killed;
mod drain_machines;
mod drain_restarts;
mod drain_stalled;
mod drains;
mod fetched;
mod flushed;
mod holds;
mod in_service;
mod informed;
mod interrupts;
mod iperf3;
mod killed;
mod known_good;
mod manifests;
mod notices;
mod orders;
mod packages;
mod passing;
mod profiles;
mod protocol_1;
mod serving;
mod store;
mod stored_packages;
mod strangers;
mod up;
