//! A pseudo-terminal, as a program has it that somebody looks at: it has a size, its keys send signals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// The key that interrupts, as a terminal sends it.
const CONTROL_C: &[u8] = b"\x03";

/// A terminal; what is written to it is read by the process that was started on it.
#[derive(Debug)]
pub struct Terminal {
    /// The side of whoever looks and types.
    near: File,
}

impl Terminal {
    /// One of so many columns and rows, with the command in its foreground, as a shell would start it.
    pub(super) fn with(command: &mut Command, (columns, rows): (u16, u16)) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags).expect("the system has terminals left");
        grantpt(&near).expect("it is ours");
        unlockpt(&near).expect("it is ours");
        let far = ioctl_tiocgptpeer(&near, flags).expect("it is unlocked");
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&far, size).expect("it is a terminal");
        let another = |far: &OwnedFd| far.try_clone().expect("there are descriptors left");
        command.stdin(another(&far)).stdout(another(&far)).stderr(far).env("TERM", "xterm-256color");
        // SAFETY: between fork and exec this makes two system calls (setsid and an ioctl) and nothing else.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                Ok(ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        Terminal { near: File::from(near) }
    }

    /// What is written to it.
    pub(super) fn output(&self) -> impl Read + Send + 'static {
        self.near.try_clone().expect("there are descriptors left")
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&mut self) {
        self.near.write_all(CONTROL_C).expect("a terminal takes a key");
    }

    /// True where it shows control characters that are typed as `^C`, as a terminal does that nobody has changed.
    pub fn echoes_control(&self) -> bool {
        let modes = tcgetattr(self.near.as_fd()).expect("it is a terminal").local_modes;
        modes.contains(LocalModes::ECHOCTL)
    }
}
