//! What a machine is made of, as the agent reads it from /proc, /sys and SMBIOS.

use serde::{Deserialize, Serialize};

/// A machine's hardware. What a machine does not say is `None`; what could not be read stands in `unread`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Inventory {
    /// Processors.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Disks: whole block devices that hold data of their own (no partition, loop, ram, zram or device-mapper).
    pub disks: Vec<Disk>,
    /// Network interfaces with a device behind them, and virtual ones that a driver names.
    pub nics: Vec<Nic>,
    /// Display controllers on the PCI bus, and accelerators that are GPUs in all but their class. Not each is a GPU:
    /// see [`Gpu::computes`].
    pub gpus: Vec<Gpu>,
    /// What the firmware says of the machine.
    pub dmi: Dmi,
    /// Firmware.
    pub firmware: Firmware,
    /// Power supplies, where the machine names any.
    pub psus: Vec<Psu>,
    /// Kernel release, as `uname -r`.
    pub kernel: Option<String>,
    /// Sources that are there and could not be read.
    pub unread: Vec<Unread>,
}

/// A source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unread {
    /// Part of the inventory: `cpu`, `memory`, `dimms`, `disks`, `nics`, `gpus`, `dmi`, `firmware`, `psus`.
    pub part: String,
    /// What was being read, and the error.
    pub why: String,
}

/// Processors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Cpu {
    /// Model name of the first.
    pub model: Option<String>,
    /// Sockets with at least one CPU online.
    pub sockets: Option<u32>,
    /// Cores over all sockets.
    pub cores: Option<u32>,
    /// CPUs that are online.
    pub logical: Option<u32>,
    /// Microcode revision, as the kernel prints it.
    pub microcode: Option<String>,
}

/// Memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Memory {
    /// Bytes that the kernel manages (MemTotal): somewhat less than what is installed.
    pub total_bytes: Option<u64>,
    /// Modules that SMBIOS names as installed; `None` where there is no SMBIOS.
    pub dimms: Option<Vec<Dimm>>,
}

/// A memory module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Dimm {
    /// Slot, as `DIMM_A1`.
    pub locator: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Configured speed in MT/s.
    pub speed_mts: Option<u32>,
    /// Kind, as `DDR5`.
    pub kind: Option<String>,
    /// Maker.
    pub manufacturer: Option<String>,
    /// Part number.
    pub part: Option<String>,
    /// Serial.
    pub serial: Option<String>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Disk {
    /// Kernel name, as `nvme0n1`.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Serial.
    pub serial: Option<String>,
    /// WWN, EUI64 or NGUID as the kernel prints it.
    pub wwn: Option<String>,
    /// Bytes.
    pub size_bytes: u64,
    /// `nvme`, `sata`, `sas`, `usb`, `virtio`, `mmc`, or another word of the kernel's.
    pub transport: Option<String>,
    /// True for a disk with platters.
    pub rotational: Option<bool>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// PCI address of its controller.
    pub pci: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Nic {
    /// Kernel name, as `eth0`.
    pub name: String,
    /// Driver.
    pub driver: Option<String>,
    /// Permanent address where it is known, else the current one.
    pub mac: Option<String>,
    /// Mb/s; `None` where the link is down or the interface has no speed.
    pub speed_mbps: Option<u32>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// The kernel's operstate, as `up`.
    pub state: Option<String>,
    /// PCI address.
    pub pci: Option<String>,
    /// True where no device stands behind it, or a paravirtual one.
    pub is_virtual: bool,
}

/// A display controller, or an accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Gpu {
    /// PCI address, as `0000:17:00.0`.
    pub pci: String,
    /// PCI vendor id, as `10de`.
    pub vendor: String,
    /// PCI device id, as `2335`.
    pub device: String,
    /// PCI class, as `030200`.
    pub class: String,
    /// Driver bound to it.
    pub driver: Option<String>,
}

/// Vendors (PCI ids) whose display controllers show a console and compute nothing: of the board's management, or of a
/// virtual machine.
const CONSOLE_VENDORS: [&str; 11] = [
    "1a03", // ASPEED, on most server boards
    "102b", // Matrox G200, on server boards before that
    "1013", // Cirrus, QEMU
    "1234", // Bochs, QEMU
    "1af4", // virtio
    "1b36", // QXL, Red Hat
    "1414", // Hyper-V
    "15ad", // VMware
    "80ee", // VirtualBox
    "1ab8", // Parallels
    "5853", // Xen
];
/// The same of vendors that make other things of this class too: vendor and device.
const CONSOLE_DEVICES: [(&str, &str); 3] = [
    ("1002", "515e"), // ES1000 of ATI, on server boards
    ("19e5", "1711"), // Hi171x of Huawei, on server boards
    ("1d0f", "1111"), // the console of an EC2 machine
];

impl Gpu {
    /// True for a display controller that only shows a console: of the board's management, or of a virtual machine. It
    /// is no GPU: nothing counts it as one, and it may go without a driver.
    pub fn is_console(&self) -> bool {
        CONSOLE_VENDORS.contains(&self.vendor.as_str())
            || CONSOLE_DEVICES.contains(&(self.vendor.as_str(), self.device.as_str()))
    }

    /// True for a GPU that is there to compute, which is what a profile counts and a driver must be bound to: whatever NVIDIA
    /// makes, and of others what is no VGA controller (class 0300), which comes with a CPU or shows a console; but for Intel's,
    /// whose cards say that they are one, beside the one within a CPU, which sits on the first bus.
    pub fn computes(&self) -> bool {
        const INTEL: &str = "8086";
        let is_vga = self.class.starts_with("0300");
        let is_card = self.vendor == INTEL && !self.pci.starts_with("0000:00:");
        self.is_nvidias() || (!self.is_console() && (!is_vga || is_card))
    }

    /// True for one of NVIDIA's.
    pub fn is_nvidias(&self) -> bool {
        self.vendor == "10de"
    }

    /// Vendor and device, as a profile names a kind of GPU: `10de:2330`.
    pub fn kind(&self) -> String {
        format!("{}:{}", self.vendor, self.device)
    }
}

impl Inventory {
    /// The GPUs that are there to compute.
    pub fn real_gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(|gpu| gpu.computes())
    }
}

/// What the firmware says of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Dmi {
    /// Maker of the system.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// Serial of the system.
    pub serial: Option<String>,
    /// UUID of the system.
    pub uuid: Option<String>,
    /// Maker and product of the board.
    pub board: Option<String>,
    /// Serial of the board.
    pub board_serial: Option<String>,
}

/// Firmware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Firmware {
    /// Maker.
    pub vendor: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Date as the firmware writes it.
    pub date: Option<String>,
    /// True where the kernel was started by UEFI.
    pub efi: bool,
}

/// A power supply.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Psu {
    /// Name or slot.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Serial.
    pub serial: Option<String>,
    /// State as the machine says it.
    pub state: Option<String>,
}
