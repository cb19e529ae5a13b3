//! What the walks with the built binaries share: real processes over real sockets, and a stand-in for stress-ng that
//! does what a test tells it.
//!
//! ```text
//!   test ──▶ Server   groundcrewd in a folder of its own, on a loopback address of its own; its operator's client
//!        ──▶ Machine  an agent's home, its PATH with the stand-in, the agent process
//!        ──▶ Load     the stand-in, told over a FIFO what to do; it tells over another what it did
//!        ──▶ Gate     a way between both that holds what is large in the middle
//!        ──▶ Sink     whom the orchestrator tells of shutdowns, well or badly behaved
//!        ──▶ Browser  Chromium without a screen, for the pages and their script
//!        ──▶ Sshd     a real SSH server, for the key of a hold
//!        ──▶ programs a root with a shell, and scripts that stand in for a machine's programs
//!        ──▶ Cgroup   a cgroup with little memory           mounts   mounts that only one test sees
//!        ──▶ Terminal a pseudo-terminal, for what shows itself otherwise to somebody who looks
//! ```
//!
//! Nothing is taken from how long something takes: every wait is for an event, a line or an end, and gives up after
//! [`STUCK`], which means that it never comes. Processes die with the test that started them.

pub mod browser;
pub mod cgroup;
pub mod gate;
pub mod load;
pub mod machine;
pub mod mounts;
pub mod process;
pub mod programs;
pub mod server;
pub mod sink;
pub mod sshd;
pub mod terminal;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

pub use browser::Browser;
pub use cgroup::Cgroup;
pub use gate::Gate;
pub use load::Load;
pub use machine::Machine;
pub use mounts::{in_own_mounts, mount};
pub use process::{Handle, Process};
pub use server::{Run, Server};
pub use sink::{Answers, Sink};
pub use sshd::Sshd;
pub use terminal::Terminal;

/// What has not come after this never comes.
pub const STUCK: Duration = Duration::from_secs(300);
/// Where nothing tells that something has changed, it is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// One of the project's binaries: in `GROUNDCREW_BIN_DIR`, else beside the test that runs.
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("GROUNDCREW_BIN_DIR").map_or_else(beside_this_test, PathBuf::from);
    let path = folder.join(name);
    let how = "build it with `cargo build --workspace --bins` (with --release for a release test)";
    assert!(path.is_file(), "there is no {}; {how}", path.display());
    path
}

/// `target/PROFILE`, whose `deps` hold this test.
fn beside_this_test() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps");
    folder.to_owned()
}

/// A FIFO that stays open at both ends, so that opening the other never blocks.
fn fifo(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("the folder is ours");
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("flags fit");
    let opened = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(path);
    opened.expect("the FIFO is ours")
}

/// Asks until there is an answer, for what no event tells of.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < STUCK, "never came: {what}");
        std::thread::sleep(ASK_AGAIN);
    }
}
