//! A server that is a folder: two sockets, four modules, NVMe, SATA, SAS and virtio disks, cards, a GPU, sensors.

use std::path::Path;

use super::Root;

/// A folder that stands in for a machine, gone when this is dropped.
pub(crate) struct Machine {
    pub(crate) root: Root,
    _folder: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn empty() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        Machine { root: Root::at(folder.path()), _folder: folder }
    }

    pub(crate) fn write(&self, absolute: &str, content: impl AsRef<[u8]>) {
        let path = self.root.path(absolute);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn link(&self, absolute: &str, target: &str) {
        let path = self.root.path(absolute);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(Path::new(target), path).unwrap();
    }

    /// Puts a device without a driver on the PCI bus.
    pub(crate) fn pci(&self, address: &str, class: &str, vendor: &str, device: &str) {
        let folder = format!("/sys/bus/pci/devices/{address}");
        self.attributes(&folder, &[("class", class), ("vendor", vendor), ("device", device)]);
    }

    /// Takes the driver from a device on the PCI bus.
    pub(crate) fn take_driver(&self, address: &str) {
        std::fs::remove_file(self.root.path(&format!("/sys/bus/pci/devices/{address}/driver"))).unwrap();
    }

    /// Writes several attributes below a folder.
    fn attributes(&self, folder: &str, attributes: &[(&str, &str)]) {
        for (name, value) in attributes {
            self.write(&format!("{folder}/{name}"), format!("{value}\n"));
        }
    }
}

/// The server.
pub(crate) fn server() -> Machine {
    let machine = Machine::empty();
    processors(&machine);
    disks(&machine);
    cards(&machine);
    sensors(&machine);
    machine.write("/proc/meminfo", "MemTotal:       270000000 kB\nMemFree:        1 kB\n");
    machine.write("/proc/sys/kernel/osrelease", "6.1.0-56-amd64\n");
    machine.write("/sys/firmware/efi/fw_platform_size", "64\n");
    machine.write("/sys/firmware/dmi/tables/smbios_entry_point", super::smbios::tests::entry_point());
    machine.write("/sys/firmware/dmi/tables/DMI", super::smbios::tests::server_table());
    machine
}

/// Eight CPUs: two sockets of two cores of two threads; CPU 9 is offline.
fn processors(machine: &Machine) {
    let mut cpuinfo = String::new();
    for cpu in 0..8 {
        let (socket, core) = (cpu / 2 % 2, cpu % 2);
        cpuinfo.push_str(&format!(
            "processor\t: {cpu}\nmodel name\t: Intel(R) Xeon(R) Gold 6430\nmicrocode\t: 0x2b000590\n\
             physical id\t: {socket}\ncore id\t\t: {core}\ncpu MHz\t\t: 2100.000\n\n"
        ));
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        let siblings = format!("{},{}", cpu % 4, cpu % 4 + 4);
        machine.attributes(
            &topology,
            &[("physical_package_id", &socket.to_string()), ("core_cpus_list", &siblings)],
        );
    }
    machine.write("/proc/cpuinfo", cpuinfo);
    machine.write("/sys/devices/system/cpu/online", "0-7\n");
}

fn disks(machine: &Machine) {
    let nvme = "/sys/devices/pci0000:64/0000:64:00.0/0000:65:00.0/nvme/nvme0";
    machine.attributes(
        nvme,
        &[
            ("model", "SAMSUNG MZQL23T8HCLS-00A07              "),
            ("serial", "S64HNE0R500123      "),
            ("firmware_rev", "GDC5602Q"),
            ("transport", "pcie"),
        ],
    );
    let namespace = format!("{nvme}/nvme0n1");
    machine.attributes(
        &namespace,
        &[
            ("size", "7501476528"),
            ("queue/rotational", "0"),
            ("wwid", "eui.36344830526001230025384500000001"),
        ],
    );
    machine.link(&format!("{namespace}/device"), "../../nvme0");
    machine.link("/sys/block/nvme0n1", &format!("..{}", &namespace["/sys".len()..]));

    let sata = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
    scsi(machine, sata, "sda", "ATA     ", "WDC WD4000FYYZ  ", b"\0\x80\0\x14     WD-WCC4N0000001");
    let sas = "/sys/devices/pci0000:17/0000:18:00.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0";
    scsi(machine, sas, "sdb", "SEAGATE ", "ST8000NM0075    ", b"\0\x80\0\x08ZC1A0001");

    let virtio = "/sys/devices/pci0000:00/0000:00:04.0/virtio1";
    machine.attributes(&format!("{virtio}/block/vda"), &[("size", "4194304"), ("serial", "rootdisk")]);
    machine.attributes(&format!("{virtio}/block/vda"), &[("queue/rotational", "1")]);
    machine.link(&format!("{virtio}/block/vda/device"), "../../../virtio1");
    machine.link("/sys/block/vda", "../devices/pci0000:00/0000:00:04.0/virtio1/block/vda");

    // What is no disk of its own, an empty reader, an unconnected network device, a hidden path.
    for (name, size) in
        [("loop0", "8"), ("ram0", "8"), ("zram0", "8"), ("dm-0", "8"), ("md127", "8"), ("sr0", "8")]
    {
        machine.attributes(&format!("/sys/block/{name}"), &[("size", size)]);
    }
    machine.attributes("/sys/block/nbd0", &[("size", "0")]);
    machine.attributes("/sys/block/sdc", &[("size", "0"), ("removable", "1")]);
    machine.attributes("/sys/block/nvme0c0n1", &[("size", "7501476528"), ("hidden", "1")]);
}

fn scsi(machine: &Machine, path: &str, name: &str, vendor: &str, model: &str, page: &[u8]) {
    let block = format!("{path}/block/{name}");
    machine.attributes(&block, &[("size", "15628053168"), ("queue/rotational", "1"), ("removable", "0")]);
    machine.attributes(path, &[("vendor", vendor), ("model", model), ("rev", "0001")]);
    machine.attributes(path, &[("wwid", "naa.5000c500a1b2c3d4")]);
    machine.write(&format!("{path}/vpd_pg80"), page);
    let address = path.rsplit('/').next().unwrap();
    machine.link(&format!("{block}/device"), &format!("../../../{address}"));
    machine.link(&format!("/sys/block/{name}"), &format!("..{}", &block["/sys".len()..]));
}

fn cards(machine: &Machine) {
    let card = |function: &str, name: &str, attributes: &[(&str, &str)]| {
        let pci = format!("/sys/devices/pci0000:4a/0000:4b:00.{function}");
        let net = format!("{pci}/net/{name}");
        machine.attributes(&net, attributes);
        machine.link(&format!("{net}/device"), &format!("../../../0000:4b:00.{function}"));
        machine.link(&format!("{pci}/driver"), "../../../bus/pci/drivers/mlx5_core");
        machine.link(&format!("{pci}/subsystem"), "../../../bus/pci");
        machine.link(&format!("/sys/class/net/{name}"), &format!("../..{}", &net["/sys".len()..]));
    };
    let up = [("address", "b8:ce:f6:00:00:01"), ("speed", "100000"), ("mtu", "9000"), ("operstate", "up")];
    card("0", "eno1", &up);
    let down = [
        ("address", "b8:ce:f6:00:00:01"),
        ("bonding_slave/perm_hwaddr", "b8:ce:f6:00:00:02"),
        ("speed", "-1"),
        ("mtu", "1500"),
        ("operstate", "down"),
    ];
    card("1", "eno2", &down);
    let virtio = "/sys/devices/pci0000:00/0000:00:05.0/virtio2";
    machine.attributes(&format!("{virtio}/net/eth9"), &[("address", "52:54:00:00:00:09"), ("mtu", "1500")]);
    machine.link(&format!("{virtio}/net/eth9/device"), "../../../virtio2");
    machine.link(&format!("{virtio}/driver"), "../../../../bus/virtio/drivers/virtio_net");
    machine.link(&format!("{virtio}/subsystem"), "../../../../bus/virtio");
    machine.link("/sys/class/net/eth9", "../../devices/pci0000:00/0000:00:05.0/virtio2/net/eth9");
    machine
        .attributes("/sys/class/net/bond0", &[("uevent", "DEVTYPE=bond\nINTERFACE=bond0"), ("mtu", "1500")]);
    machine.attributes("/sys/class/net/veth1", &[("uevent", "INTERFACE=veth1"), ("mtu", "1500")]);
    machine.attributes("/sys/class/net/lo", &[("mtu", "65536")]);
    machine.write("/sys/class/net/bonding_masters", "bond0\n");
    for (pci, class, vendor, device) in [
        ("0000:00:17.0", "0x010601", "0x8086", "0x1bd2"),
        ("0000:03:00.0", "0x030000", "0x1a03", "0x2000"),
        ("0000:17:00.0", "0x030200", "0x10de", "0x2335"),
    ] {
        machine.pci(pci, class, vendor, device);
    }
    machine.link("/sys/bus/pci/devices/0000:17:00.0/driver", "../../../../bus/pci/drivers/nvidia");
    machine.link("/sys/bus/pci/devices/0000:03:00.0/driver", "../../../../bus/pci/drivers/ast");
}

fn sensors(machine: &Machine) {
    let chip = |number: u32, device: &str, attributes: &[(&str, &str)]| {
        let folder = format!("/sys/class/hwmon/hwmon{number}");
        machine.attributes(&folder, attributes);
        machine.link(&format!("{folder}/device"), &format!("../../../devices/platform/{device}"));
    };
    let name = ("name", "coretemp");
    let package = [name, ("temp1_input", "54000"), ("temp1_label", "Package id 0"), ("temp1_max", "90000")];
    chip(0, "coretemp.0", &package);
    machine.attributes("/sys/class/hwmon/hwmon0", &[("temp2_input", "51000"), ("temp2_label", "Core 0")]);
    chip(1, "coretemp.1", &[name, ("temp1_input", "57000"), ("temp1_label", "Package id 1")]);
    let drive =
        [("name", "nvme"), ("temp1_input", "49850"), ("temp1_label", "Composite"), ("temp1_alarm", "0")];
    chip(2, "nvme0", &drive);
    let board = [
        ("name", "nct6798"),
        ("fan1_input", "4200"),
        ("power1_average", "312500000"),
        ("power1_label", "PSU1 Power In"),
        ("in0_input", "1808"),
        ("curr1_input", "2500"),
    ];
    chip(3, "nct6775.656", &board);
}
