//! What a guest is started from, and how QEMU is called.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::words::PORT;
use crate::harness::server::own_loopback;

/// What `cargo xtask guest` has prepared.
#[derive(Debug, Clone)]
pub struct Kit {
    folder: PathBuf,
}

impl Kit {
    /// In `GROUNDCREW_GUEST_DIR`, else in the target folder of this test.
    ///
    /// # Panics
    /// Where it is not there: a test that needs a guest never passes without.
    pub fn find() -> Kit {
        let folder = std::env::var_os("GROUNDCREW_GUEST_DIR").map_or_else(in_target, PathBuf::from);
        let kit = Kit { folder };
        for path in [kit.tool("usr/bin/qemu-system-x86_64"), kit.image("root.img")] {
            assert!(
                path.is_file(),
                "there is no {}: what guests boot is prepared by `cargo xtask test`, or by `cargo xtask guest` alone, as \
                 root; GROUNDCREW_NO_VM=1 leaves the tests with guests out",
                path.display()
            );
        }
        kit
    }

    /// The folder in which every guest writes down what it took.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn tool(&self, path: &str) -> PathBuf {
        self.folder.join("tools/root").join(path)
    }

    fn image(&self, name: &str) -> PathBuf {
        self.folder.join("image").join(name)
    }

    /// A program of the kit, with the kit's own libraries.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.tool(program));
        let mut libraries = self.tool("usr/lib/x86_64-linux-gnu").into_os_string();
        libraries.push(":");
        libraries.push(self.tool("lib/x86_64-linux-gnu"));
        command.env("LD_LIBRARY_PATH", libraries);
        command.env("QEMU_MODULE_DIR", self.tool("usr/lib/x86_64-linux-gnu/qemu"));
        command
    }

    /// Makes a disk that starts as the prepared root and takes what a guest writes.
    pub fn make_disk(&self, disk: &Path) {
        let mut command = self.command("usr/bin/qemu-img");
        command
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(self.image("root.img"))
            .arg(disk);
        let output = command.output().expect("the kit has qemu-img");
        assert!(output.status.success(), "making a disk: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The kernel, unpacked.
    pub(super) fn kernel(&self) -> PathBuf {
        self.image("vmlinux")
    }

    /// QEMU with processors and memory, and nothing that boots.
    ///
    /// TCG alone: /dev/kvm may be there and yet boot nothing.
    pub(super) fn bare(&self, cpus: u32, memory_mib: u32) -> Command {
        let mut command = self.command("usr/bin/qemu-system-x86_64");
        for folder in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(self.tool(folder));
        }
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", &cpus.to_string(), "-m", &memory_mib.to_string()]);
        command
    }

    /// QEMU, to be started.
    pub fn qemu(&self, machine: &Setup, places: &Places) -> Command {
        let mut command = self.bare(machine.cpus, machine.memory_mib);
        command.arg("-kernel").arg(self.kernel()).arg("-initrd").arg(self.image("initramfs.cpio"));
        command.args(["-append", KERNEL_COMMAND_LINE]);
        command.args(["-smbios", &format!("type=1,serial={}", machine.serial)]);
        // A flush reaches the file and not the host's disk: what is tested is the guest's power cut, not the host's.
        let drive = "if=virtio,format=qcow2,cache=unsafe,file=";
        command.arg("-drive").arg(joined(drive, &places.disk()));
        let way_in = machine.forward.map(|(from, to)| format!(",hostfwd=tcp:{from}-:{to}"));
        command.args(["-netdev", &format!("user,id=net0{}", way_in.unwrap_or_default())]);
        command.args(["-device", "virtio-net-pci,netdev=net0,romfile="]);
        command.arg("-chardev").arg(joined("socket,id=hand,server=off,path=", &places.socket()));
        command.args(["-device", "virtio-serial-pci", "-device"]);
        command.arg(format!("virtserialport,chardev=hand,name={PORT}"));
        let share = "local,mount_tag=share,security_model=none,readonly=on,path=";
        command.arg("-virtfs").arg(joined(share, &places.share()));
        command.arg("-chardev").arg(joined("file,id=console,append=on,path=", &places.console()));
        command.args(["-serial", "chardev:console"]);
        command.args(&machine.more);
        command
    }
}

/// Quiet, because a console is slow, and without what a machine of seconds does not need. Nor is the timer tried: on a host
/// that is busy elsewhere its interrupts come too late for the kernel, which then panics.
pub(super) const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 mitigations=off apparmor=0 selinux=0 audit=0 \
                                   net.ifnames=0 no_timer_check cryptomgr.notests random.trust_cpu=on systemd.show_status=0";

/// QEMU takes a comma as the end of a value unless it is doubled; no place of a guest has one.
pub(super) fn joined(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    assert!(!path.as_os_str().as_encoded_bytes().contains(&b','), "QEMU cannot take {}", path.display());
    text.push(path);
    text
}

/// What a guest is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory_mib: u32,
    /// The machine's serial number.
    pub serial: String,
    /// An address of the host's loopback that leads to a port of the guest's.
    pub forward: Option<(SocketAddr, u16)>,
    /// More arguments for QEMU: devices.
    pub more: Vec<OsString>,
}

impl Setup {
    /// Leads an address of the host's loopback to that port of the guest's: [`Guest::forwarded`](super::Guest::forwarded).
    pub fn forwarding(mut self, port: u16) -> Setup {
        // The address is this guest's alone, so that the port is still free when QEMU takes it.
        let free = TcpListener::bind((own_loopback(), 0)).expect("loopback has a free port");
        self.forward = Some((free.local_addr().expect("a listener has an address"), port));
        self
    }
}

impl Default for Setup {
    /// One processor: a second one makes a boot hardly faster and takes a quarter more of the host's time.
    fn default() -> Setup {
        Setup { cpus: 1, memory_mib: 768, serial: "GUEST-1".to_owned(), forward: None, more: Vec::new() }
    }
}

/// Where a guest's files are, on the host.
#[derive(Debug)]
pub struct Places {
    folder: tempfile::TempDir,
}

impl Places {
    /// A fresh folder, gone with this.
    pub fn fresh() -> Places {
        Places { folder: tempfile::tempdir().expect("there is a temporary folder") }
    }

    /// What outlives a power cut.
    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk.qcow2")
    }

    /// What the guest sees in /run/share and cannot change.
    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// What every boot of it said on its serial console.
    pub fn console(&self) -> PathBuf {
        self.folder.path().join("console.log")
    }

    /// Where QEMU finds the test.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("hand.sock")
    }
}

/// `target/guest`, this test lying in `target/PROFILE/deps`.
fn in_target() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.ancestors().nth(3).expect("a test lies in target/PROFILE/deps");
    target.join("guest")
}
