//! What the machine and its settings say, read once at the start.

use std::path::Path;

use groundcrew_protocol::ids::{BootId, MacAddress, RandomId};
use groundcrew_protocol::runtime::AgentRuntime;
use groundcrew_protocol::wire::HomeKind;

use super::{StartError, system};
use crate::control::core::Facts;
use crate::home::Home;
use crate::probe::{Root, dmi, ip, nics};
use crate::process::proc_stat;
use crate::settings::Settings;

/// The machine's addresses, with the one that it booted from first, also where no driver shows that interface.
fn with_first(booted: Option<MacAddress>, mut macs: Vec<MacAddress>) -> Vec<MacAddress> {
    if let Some(booted) = booted {
        macs.retain(|mac| *mac != booted);
        macs.insert(0, booted);
    }
    macs
}

/// What this agent runs in: the pod that its manifest names, else this very process.
fn runtime(pod_uid: Option<&str>, boot_id: Option<&BootId>) -> Option<AgentRuntime> {
    if let Some(uid) = pod_uid {
        return Some(AgentRuntime::pod(uid));
    }
    let process = proc_stat::read(i32::try_from(std::process::id()).ok()?)?;
    Some(AgentRuntime::process(boot_id?.as_str(), process.pid, process.start))
}

/// How container runtimes say that this is one: a variable of Kubernetes', files of Docker's and Podman's.
fn is_container(variable: Option<std::ffi::OsString>, root: &Path) -> bool {
    variable.is_some() || [".dockerenv", "run/.containerenv"].iter().any(|file| root.join(file).exists())
}

/// True unless nothing here outlives the machine's power, as in a live image. A container's root never does, and is on a node that
/// others work on. A root that cannot be looked at is taken for an installed one: what follows asks for leave.
fn installed(is_pod: bool, home: &HomeKind, root: &Path) -> bool {
    let is_volatile = |kind: &HomeKind| *kind == HomeKind::Volatile;
    is_pod || !is_volatile(home) || !crate::files::kind_of(root).is_ok_and(|kind| is_volatile(&kind))
}

pub(super) fn facts(settings: &Settings, home: &Home) -> Result<Facts, StartError> {
    let root = Root::system();
    let mut session = [0; 16];
    getrandom::fill(&mut session).map_err(system("drawing a random number"))?;
    let proc = std::path::Path::new(groundcrew_durable::epoch::PROC);
    let boot_id = crate::interrupt::boot_id::known(proc);
    let runtime = runtime(settings.pod_uid.as_deref(), boot_id.as_ref());
    Ok(Facts {
        instance: home.instance().clone(),
        session: RandomId::from_bytes(session),
        boot_id,
        boot_epoch: groundcrew_durable::epoch::boot_epoch(proc),
        home: home.kind().clone(),
        installed: installed(
            settings.pod_uid.is_some()
                || is_container(std::env::var_os("KUBERNETES_SERVICE_HOST"), Path::new("/")),
            home.kind(),
            Path::new("/"),
        ),
        ip: ip::address(&root).map(|ip| ip.to_string()).unwrap_or_default(),
        serial: dmi::serial(&root),
        macs: with_first(settings.mac.clone(), nics::macs(&root)),
        runtime,
        power_allowed: settings.allow_power,
        reboot_allowed: settings.allow_reboot,
        keys_allowed: settings.authorized_keys.is_some(),
        drain_max_age_ms: u64::try_from(settings.drain_max_age.as_millis()).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_what_its_runtime_leaves_in_it() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_container(None, root.path()));
        assert!(is_container(Some("10.0.0.1".into()), root.path()));
        std::fs::create_dir(root.path().join("run")).unwrap();
        for file in [".dockerenv", "run/.containerenv"] {
            let path = root.path().join(file);
            std::fs::write(&path, "").unwrap();
            assert!(is_container(None, root.path()), "{file}");
            std::fs::remove_file(path).unwrap();
        }
    }

    /// /proc stands for a disk and /dev/shm for memory, as the kinds of their file systems have it.
    #[test]
    fn a_machine_is_installed_unless_all_of_it_goes_with_its_power() {
        let (disk, memory) = (Path::new("/proc"), Path::new("/dev/shm"));
        for (is_pod, home, root, wanted) in [
            (false, HomeKind::Volatile, memory, false),
            (false, HomeKind::Volatile, disk, true),
            (false, HomeKind::Durable, memory, true),
            (false, HomeKind::Durable, disk, true),
            (true, HomeKind::Volatile, memory, true),
            (false, HomeKind::Unknown("nvram".into()), memory, true),
        ] {
            assert_eq!(installed(is_pod, &home, root), wanted, "{is_pod} {home} {root:?}");
        }
    }

    #[test]
    fn the_interface_that_the_machine_booted_from_is_named_first() {
        let mac = |last: u8| -> MacAddress { format!("52:54:00:00:00:{last:02x}").parse().unwrap() };
        assert_eq!(with_first(None, vec![mac(1), mac(2)]), [mac(1), mac(2)]);
        assert_eq!(with_first(Some(mac(2)), vec![mac(1), mac(2)]), [mac(2), mac(1)]);
        assert_eq!(with_first(Some(mac(3)), vec![mac(1)]), [mac(3), mac(1)]);
    }
}
