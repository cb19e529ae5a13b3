//! `groundcrew package` as operators start it: the built binary, in a root file system of its own, over real files, real
//! steps and real signals. What the recorded cases show is in `tests/conformance`; here is what they do not.
//!
//! All of it needs root, as the agent does: it enters roots and mounts file systems. Without it the tests fail.

mod calls;
mod control_data;
mod disks;
mod durable_flags;
mod every_mode;
mod every_moment_of_interrupts;
mod every_moment_of_reboots;
mod golden;
mod hosts;
mod left_behind;
mod local;
mod many;
mod names;
mod place;
mod processes;
#[path = "../programs/mod.rs"]
mod programs;
mod refusals;
#[path = "../shell_root/mod.rs"]
mod shell_root;
mod tracer;
mod turns;
