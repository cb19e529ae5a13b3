//! A baseboard management controller for machines of the live image: what ipmitool in the guest asks, over the kernel's driver
//! and QEMU's interface to it, is answered here, on the host.
//!
//! ```text
//!   ipmitool ─▶ /dev/ipmi0 ─▶ isa-ipmi-kcs ─▶ ipmi-bmc-extern ─▶ Unix socket ─▶ Bmc
//! ```
//!
//! It has two supplies with a sensor of their redundancy, a fan, a temperature, DCMI power and a log of events. Supplies fail
//! and events come when the test says so; nothing that the guest asks changes anything. It outlives resets of its machine, as a
//! real one does.

mod answers;
mod line;
mod log;
mod sensors;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use self::line::{Frame, Line};
use self::log::Log;
use super::qemu::joined;

/// The supplies by their sensors, as ipmitool names them.
pub const SUPPLIES: [&str; 2] = ["PS1 Status", "PS2 Status"];
/// The sensor that tells whether one supply may fail.
pub const REDUNDANCY: &str = "PS Redundancy";
/// The fan.
pub const FAN: &str = "FAN1";

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The supply of that number, from 0 on, has failed.
    SupplyFailed(usize),
    /// Memory has an error that nothing corrected.
    MemoryUncorrectable,
}

/// What is true of the machine, and what was logged.
#[derive(Debug, Default)]
struct State {
    has_failed: [bool; SUPPLIES.len()],
    log: Log,
}

/// A BMC, until it is dropped.
#[derive(Debug)]
pub struct Bmc {
    folder: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
}

impl Bmc {
    /// One whose supplies are well, and whose log holds failures of before: of a supply and of memory.
    pub fn start() -> Bmc {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let listener = UnixListener::bind(socket_in(folder.path())).expect("the folder is ours");
        let state = Arc::new(Mutex::new(State::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (of_thread, is_over_there) = (state.clone(), is_over.clone());
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                if is_over_there.load(Ordering::Acquire) {
                    break;
                }
                let Ok(incoming) = incoming else { break };
                // QEMU has gone, or will connect anew.
                let _ended = serve(incoming, &of_thread);
            }
        });
        Bmc { folder, state, is_over }
    }

    /// The devices of a machine that has it.
    pub fn devices(&self) -> Vec<OsString> {
        // Without `reconnect` QEMU 7.2 ends at the first word.
        let mut socket = joined("socket,id=ipmi0,path=", &socket_in(self.folder.path()));
        socket.push(",reconnect=1");
        let devices =
            ["-device", "ipmi-bmc-extern,id=bmc0,chardev=ipmi0", "-device", "isa-ipmi-kcs,bmc=bmc0"];
        [OsString::from("-chardev"), socket].into_iter().chain(devices.map(OsString::from)).collect()
    }

    /// Has a supply fail: its sensor says so from now on, and nothing is logged.
    pub fn fail_supply(&self, number: usize) {
        self.state.lock().expect("no holder of this lock panics").has_failed[number] = true;
    }

    /// Has something happen once the log was read to its end the next time: what was read before a stage does not hold it, and
    /// what is read after that stage does.
    pub fn log_after_next_reading(&self, happening: Happening) {
        self.state.lock().expect("no holder of this lock panics").log.add_after_next_reading(happening);
    }
}

impl Drop for Bmc {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the listener. It fails only where that is gone already.
        let _woken = UnixStream::connect(socket_in(self.folder.path()));
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("bmc.sock")
}

/// Answers until QEMU goes.
fn serve(mut stream: UnixStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.write_all(&line::control(line::VERSION))?;
    let (mut line, mut bytes) = (Line::default(), [0; 4096]);
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        for byte in &bytes[..count] {
            match line.take(*byte) {
                Some(Frame::Request(request)) => {
                    let mut state = state.lock().expect("no holder of this lock panics");
                    let answer = answers::answer(&mut state, &request);
                    stream.write_all(&line::answer(&request, &answer))?;
                }
                // What QEMU says of itself and of the machine changes nothing here.
                Some(Frame::Control) | None => {}
            }
        }
    }
}
