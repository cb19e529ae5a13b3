//! Interrupts by the built agent, in a root of their own in which `reboot`, `systemctl` and `service` are scripts: reboots that
//! are asked for and do not come at once, what SIGTERM makes of them, what systemd says, and what counts as a proof.

#[path = "../programs/mod.rs"]
mod programs;
#[path = "../shell_root/mod.rs"]
mod shell_root;

mod ids;
mod node;
mod proofs;
mod requests;
mod services;
mod signals;
