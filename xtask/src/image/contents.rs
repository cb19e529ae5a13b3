//! What the live image holds: lists, and files of its own.

/// Debian's packages that programs and libraries are taken from. Their dependencies come along; of all of these only what
/// is named below, and the libraries that it needs, goes into the image.
pub const PACKAGES: [&str; 19] = [
    "bash",
    "busybox-static",
    "dmidecode",
    "ethtool",
    "fio",
    "iperf3",
    "ipmitool",
    "iproute2",
    "kmod",
    "nvme-cli",
    "openssh-client",
    "openssh-server",
    "pciutils",
    "procps",
    "smartmontools",
    "stress-ng",
    "util-linux",
    // Packs the image; it is not in it.
    "zstd",
    // `libgcc_s`, for an agent that is not static, as tests have it.
    "libgcc-s1",
];

/// Programs, by their places in the packages.
pub const PROGRAMS: [&str; 27] = [
    "bin/bash",
    "bin/busybox",
    "bin/dmesg",
    "bin/ip",
    "bin/kmod",
    "bin/lsblk",
    "bin/ps",
    "sbin/blkid",
    "sbin/ethtool",
    "sbin/wipefs",
    "usr/bin/fio",
    "usr/bin/iperf3",
    "usr/bin/ipmitool",
    "usr/bin/lscpu",
    "usr/bin/lspci",
    "usr/bin/partx",
    "usr/bin/pgrep",
    "usr/bin/pkill",
    "usr/bin/ssh-keygen",
    "usr/bin/stress-ng",
    "usr/bin/taskset",
    "usr/lib/openssh/sftp-server",
    "usr/sbin/dmidecode",
    "usr/sbin/nvme",
    "usr/sbin/smartctl",
    "usr/sbin/sshd",
    "lib/x86_64-linux-gnu/libgcc_s.so.1",
];

/// The names by which kmod is called.
pub const KMOD_NAMES: [&str; 5] = ["depmod", "insmod", "lsmod", "modprobe", "rmmod"];

/// What programs read, by its place in the packages.
pub const DATA: [&str; 3] =
    ["usr/share/misc/pci.ids", "usr/share/misc/enterprise-numbers.txt", "usr/share/smartmontools/drivedb.h"];

/// Folders and files of the kernel's modules that a server may need to be tested; what these need comes along.
pub const MODULES: [&str; 41] = [
    "arch/x86",
    "drivers/acpi",
    "drivers/ata",
    "drivers/block/virtio_blk.ko",
    "drivers/block/loop.ko",
    "drivers/char/hw_random",
    "drivers/char/ipmi",
    "drivers/char/virtio_console.ko",
    "drivers/cpufreq",
    "drivers/dma",
    "drivers/edac",
    "drivers/hid/hid-generic.ko",
    "drivers/hid/usbhid",
    "drivers/hwmon",
    "drivers/i2c",
    "drivers/infiniband/core",
    "drivers/infiniband/hw",
    "drivers/infiniband/ulp/ipoib",
    "drivers/message",
    "drivers/net/bonding",
    "drivers/net/ethernet",
    "drivers/net/mdio",
    "drivers/net/phy",
    "drivers/net/virtio_net.ko",
    "drivers/net/vmxnet3",
    "drivers/nvdimm",
    "drivers/nvme/host",
    "drivers/platform/x86",
    "drivers/powercap",
    "drivers/scsi",
    "drivers/thermal",
    "drivers/usb/core",
    "drivers/usb/host",
    "drivers/usb/storage",
    "drivers/virtio",
    "fs/ext4",
    "fs/fat",
    "fs/nls",
    "net/8021q",
    "net/packet",
    "crypto",
];

/// Files: place, mode, contents.
pub const FILES: [(&str, u32, &str); 11] = [
    ("etc/groundcrew/prepare", 0o755, include_str!("files/prepare.sh")),
    ("etc/groundcrew/lease", 0o755, include_str!("files/lease.sh")),
    // What no device asks for by itself.
    ("etc/groundcrew/modules", 0o644, "ipmi_si\nipmi_devintf\nmsr\n"),
    ("etc/ssh/sshd_config", 0o644, include_str!("files/sshd_config")),
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534:sshd:/run/sshd:/usr/sbin/nologin\n",
    ),
    // No password opens anything.
    ("etc/shadow", 0o600, "root:*:19000::::::\nsshd:*:19000::::::\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", 0o644, "live\n"),
    ("etc/profile", 0o644, "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"),
    ("etc/shells", 0o644, "/bin/sh\n/bin/bash\n"),
];

/// Folders: place, mode.
pub const FOLDERS: [(&str, u32); 10] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("root/.ssh", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var/empty", 0o755),
    ("var/lib/groundcrew", 0o700),
    ("var/log", 0o755),
];

/// What the agent of a live image is told, before what the builder says: its clock is the orchestrator's, the machine is
/// there to be switched off, its disks are there to be tested (which of them, and whether, the run says), and a hold's key is
/// root's, whose only home is this memory.
pub const SETTINGS: [(&str, &str); 6] = [
    ("GROUNDCREW_CLOCK", "hello"),
    ("GROUNDCREW_ALLOW_POWER", "yes"),
    ("GROUNDCREW_ALLOW_REBOOT", "yes"),
    ("GROUNDCREW_ALLOW_WIPE", "yes"),
    ("GROUNDCREW_AUTHORIZED_KEYS", "/root/.ssh/authorized_keys"),
    ("GROUNDCREW_ALLOW_ROOT_KEYS", "yes"),
];
