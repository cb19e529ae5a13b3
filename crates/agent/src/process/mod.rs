//! External programs: started so that nothing of them can be lost, read without a limit being passed, and ended
//! whole.
//!
//! [`tool::run`] is what the stages call, from a plain thread of their own. A child's pid, start time and boot id
//! are durable before it runs ([`child_record`]); what a killed agent left running is ended by the next
//! ([`sweep`]). Nothing here judges what a program said.
//!
//! [`tee`] is for the steps of a package, which are no tools: they may enter another root ([`chroot_exec`]), run for as
//! long as they like, leave processes behind, and what they print is handed on byte for byte, only stamped ([`stamper`]).

pub mod cancel;
pub mod child_record;
pub mod chroot_exec;
mod control_data;
pub mod launcher;
pub mod lines;
pub mod local_time;
pub mod proc_stat;
mod reader;
pub mod stamper;
pub mod sweep;
pub mod tee;
pub mod termination;
pub mod tool;

pub use cancel::Cancel;
pub use child_record::ChildRecords;
pub use control_data::ControlData;
pub use launcher::Launcher;
