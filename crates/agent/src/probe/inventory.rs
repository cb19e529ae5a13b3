//! The whole inventory of a machine.

use groundcrew_protocol::inventory::{Inventory, Memory};

use super::{Root, Unreads, cpu, disks, dmi, gpus, memory, nics};

/// Reads everything. What is there and cannot be read stands in `unread`.
pub fn collect(root: &Root) -> Inventory {
    let mut unreads = Unreads::default();
    let said = dmi::read(root, &mut unreads);
    Inventory {
        cpu: cpu::read(root, &mut unreads),
        memory: Memory { total_bytes: memory::total_bytes(root, &mut unreads), dimms: said.dimms },
        disks: disks::read(root, &mut unreads),
        nics: nics::read(root, &mut unreads),
        gpus: gpus::read(root, &mut unreads),
        dmi: said.dmi,
        firmware: said.firmware,
        psus: said.psus,
        kernel: root.detail("/proc/sys/kernel/osrelease"),
        unread: unreads.into_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture;

    #[test]
    fn a_server_is_read_whole() {
        let inventory = collect(&fixture::server().root);
        assert_eq!(inventory.unread, []);
        assert_eq!(inventory.memory.total_bytes, Some(270_000_000 * 1024));
        assert_eq!(inventory.memory.dimms.as_ref().map(Vec::len), Some(4));
        assert_eq!((inventory.disks.len(), inventory.gpus.len(), inventory.psus.len()), (4, 2, 2));
        assert!(inventory.firmware.efi);
        assert_eq!(inventory.kernel.as_deref(), Some("6.1.0-56-amd64"));
    }

    #[test]
    fn this_machine_is_read_truthfully() {
        let inventory = collect(&Root::system());
        assert!(inventory.cpu.logical.is_some_and(|count| count > 0));
        assert!(inventory.memory.total_bytes.is_some());
        let has_tables = Root::system().exists("/sys/firmware/dmi/tables/DMI");
        assert!(has_tables || inventory.memory.dimms.is_none());
    }
}
