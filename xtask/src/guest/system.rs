//! The kernel, the initramfs and the root image that every guest boots.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;
use crate::debian::tools::tool;
use crate::debian::{bootstrap, entries, only_entry};

/// Changes whenever this file or one that it puts into the image does.
pub const RECIPE: &str = concat!(
    include_str!("system.rs"),
    include_str!("init.sh"),
    include_str!("hand.service"),
    include_str!("unit-ended.sh")
);

/// What the root holds beyond Debian's essential packages.
const PACKAGES: [&str; 8] = [
    "systemd",
    // `reboot`, `poweroff` and `init` as links to systemd's own.
    "systemd-sysv",
    "dbus",
    // logind, which a real machine's `systemctl reboot` asks first.
    "libpam-systemd",
    "udev",
    "kmod",
    "iproute2",
    "procps",
];

/// What nobody reads in a guest.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/zoneinfo/*"];

/// What leads to the root file system, the channel and the shared folder, and what tests mount.
const MODULES: [&str; 10] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "crc32c_generic",
    "ext4",
    "9p",
    "9pnet_virtio",
    "overlay",
    "autofs4",
];

/// Units that cost a guest seconds and give it nothing. Its few devices are there without udev's first walk over all;
/// a test that asks udev for one asks it to walk (`udevadm trigger`).
const MASKED: [&str; 25] = [
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-journal-flush.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-trigger.service",
    "systemd-update-utmp.service",
];

/// Generators make units out of what this root does not have (fstab, LUKS, SysV scripts); each is a process at every
/// boot and every reload.
const GENERATORS: &str = "lib/systemd/system-generators";

/// Files of the root: path, contents.
const FILES: [(&str, &str); 7] = [
    ("etc/hostname", "guest\n"),
    ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 guest\n10.0.2.2 host\n"),
    // Not a guest's own: nothing that is tested tells machines apart by it.
    ("etc/machine-id", "67756573740000000000000000000001\n"),
    ("etc/fstab", ""),
    ("etc/systemd/journald.conf.d/guest.conf", "[Journal]\nStorage=volatile\n"),
    ("etc/systemd/system/guest-hand.service", include_str!("hand.service")),
    ("usr/local/sbin/unit-ended", include_str!("unit-ended.sh")),
];

/// Room for what tests write, the image itself being sparse.
const ROOT_SIZE: &str = "3G";

/// Makes all three in `new`, from the unpacked tools.
pub fn make(tools: &Path, new: &Path) -> Result<()> {
    let kernel = only_entry(&tools.join("lib/modules"))?;
    fs::write(new.join("vmlinux"), unpack_kernel(tools, &kernel)?).context("writing the kernel")?;
    make_initramfs(tools, &kernel, new)?;
    let root = new.join("root");
    bootstrap::unpack("essential", &PACKAGES, &LEFT_OUT, &root)?;
    settle(&root)?;
    let mut format = tool(tools, "sbin/mke2fs", "mkfs.ext4");
    format.env("MKE2FS_CONFIG", tools.join("etc/mke2fs.conf"));
    // All tables are written now, rather than by every guest's kernel in the background.
    format.args(["-q", "-L", "guest", "-N", "65536", "-J", "size=16", "-E", "lazy_itable_init=0,nodiscard"]);
    cargo::run(format.arg("-d").arg(&root).arg(new.join("root.img")).arg(ROOT_SIZE))?;
    fs::remove_dir_all(&root).context("removing the tree that the image was made of")
}

/// The kernel inside the compressed one: where it lies is in the header of the boot protocol
/// (Documentation/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn unpack_kernel(tools: &Path, kernel: &str) -> Result<Vec<u8>> {
    let path = tools.join("boot").join(format!("vmlinuz-{kernel}"));
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let payload = payload(&bytes).with_context(|| format!("{} is no kernel of that kind", path.display()))?;
    let packed = std::env::temp_dir().join(format!("groundcrew-kernel-{}.xz", std::process::id()));
    fs::write(&packed, payload).with_context(|| format!("writing {}", packed.display()))?;
    let unpacked = tool(tools, "usr/bin/xz", "xz").args(["-dc", "--single-stream"]).arg(&packed).output();
    fs::remove_file(&packed).with_context(|| format!("removing {}", packed.display()))?;
    let unpacked = unpacked.context("starting xz")?;
    ensure!(
        unpacked.status.success() && unpacked.stdout.starts_with(b"\x7fELF"),
        "xz did not unpack {}: {}",
        path.display(),
        String::from_utf8_lossy(&unpacked.stderr)
    );
    Ok(unpacked.stdout)
}

/// The compressed kernel without the four bytes after it, which are its size and no part of the stream.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = usize::from(*bytes.get(0x1f1)?);
    let from = (sectors + 1) * 512 + number(0x248)?;
    let payload = bytes.get(from..from + number(0x24c)?.checked_sub(4)?)?;
    payload.starts_with(b"\xfd7zXZ\0").then_some(payload)
}

fn make_initramfs(tools: &Path, kernel: &str, new: &Path) -> Result<()> {
    let tree = new.join("initramfs");
    fs::create_dir_all(tree.join("bin")).context("making the initramfs")?;
    fs::create_dir(tree.join("modules")).context("making the initramfs")?;
    fs::copy(tools.join("bin/busybox"), tree.join("bin/busybox")).context("copying busybox")?;
    write(&tree, "init", include_str!("init.sh"), 0o755)?;
    let mut names = Vec::from(["init", "bin", "bin/busybox", "modules", "modules.order"].map(String::from));
    let mut order = String::new();
    for module in modules(tools, kernel)? {
        let name =
            Path::new(&module).file_name().context("a module is a file")?.to_string_lossy().into_owned();
        fs::copy(&module, tree.join("modules").join(&name)).with_context(|| format!("copying {module}"))?;
        order += &format!("{name}\n");
        names.push(format!("modules/{name}"));
    }
    write(&tree, "modules.order", &order, 0o644)?;
    let list = new.join("initramfs.list");
    fs::write(&list, names.join("\n") + "\n").context("listing the initramfs")?;
    let open = |path: &Path| fs::File::open(path).with_context(|| format!("opening {}", path.display()));
    let archive = fs::File::create(new.join("initramfs.cpio")).context("making the initramfs")?;
    let mut pack = Command::new(tools.join("bin/busybox"));
    pack.args(["cpio", "-o", "-H", "newc"])
        .current_dir(&tree)
        .stdin(open(&list)?)
        .stdout(Stdio::from(archive));
    cargo::run(&mut pack)?;
    fs::remove_file(&list).context("removing the list of the initramfs")?;
    fs::remove_dir_all(&tree).context("removing the tree of the initramfs")
}

/// The files of all modules, each after those that it depends on.
fn modules(tools: &Path, kernel: &str) -> Result<Vec<String>> {
    cargo::run(tool(tools, "bin/kmod", "depmod").arg("-b").arg(tools).arg(kernel))?;
    let mut files: Vec<String> = Vec::new();
    for module in MODULES {
        let mut ask = tool(tools, "bin/kmod", "modprobe");
        let said = cargo::output(ask.arg("-d").arg(tools).args(["-S", kernel, "--show-depends", module]))?;
        for file in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = file.trim().to_owned();
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Makes a Debian tree the guest's.
fn settle(root: &Path) -> Result<()> {
    for (path, contents) in FILES {
        let mode = if path.contains("sbin/") { 0o755 } else { 0o644 };
        write(root, path, contents, mode)?;
    }
    fs::create_dir_all(root.join("var/lib/guest")).context("making a folder for what units leave")?;
    let units = root.join("etc/systemd/system");
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    for generator in entries(&root.join(GENERATORS))? {
        link("/dev/null", &root.join("etc/systemd/system-generators").join(generator))?;
    }
    link("../guest-hand.service", &units.join("sysinit.target.wants/guest-hand.service"))?;
    // A guest that is up has everything that this asks for and no graphical anything.
    link("/lib/systemd/system/multi-user.target", &units.join("default.target"))
}

fn write(root: &Path, path: &str, contents: &str, mode: u32) -> Result<()> {
    let path = root.join(path);
    let saying = || format!("writing {}", path.display());
    fs::create_dir_all(path.parent().unwrap_or(root)).with_context(saying)?;
    // What is there may be a link that leads out of the tree.
    remove_file(&path)?;
    fs::write(&path, contents).with_context(saying)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(saying)
}

fn link(to: &str, path: &Path) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))
        .with_context(|| format!("linking {}", path.display()))?;
    remove_file(path)?;
    symlink(to, path).with_context(|| format!("linking {}", path.display()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says_and_nothing_else_is_taken() {
        let mut bytes = vec![0u8; 4096];
        bytes[0x1f1] = 2;
        bytes[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&14u32.to_le_bytes());
        let from = 3 * 512 + 16;
        bytes[from..from + 10].copy_from_slice(b"\xfd7zXZ\0abcd");
        assert_eq!(payload(&bytes), Some(&b"\xfd7zXZ\0abcd"[..]));
        bytes[from] = 0;
        assert_eq!(payload(&bytes), None, "another compression");
        assert_eq!(payload(&bytes[..from]), None, "a torn file");
        assert_eq!(payload(b""), None);
    }
}
