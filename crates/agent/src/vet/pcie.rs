//! Links on PCIe: how many lanes of a device's work, and how fast they run, of what it and the port that it hangs on can.
//!
//! By the attributes `{current,max}_link_{width,speed}` that the kernel shows of each end of a link (Documentation/ABI/testing/
//! sysfs-bus-pci). Lanes that work are the same at any time; a link that rests may go slow, so that its speed is asked under load.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use groundcrew_protocol::check::Observation;

use crate::probe::Root;

const DEVICES: &str = "/sys/bus/pci/devices";
/// The kernel's number for lanes that nobody knows of (PCIe 5.0, table 7-29: six bits, of which 32 is the most that is defined).
const LANES_MAX: f64 = 32.0;
/// Time between two looks at links under load.
const SAMPLE_PAUSE: Duration = Duration::from_secs(1);

/// A value of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Lanes.
    Width,
    /// GT/s of each.
    Speed,
}

impl Of {
    fn attribute(self, when: &str) -> String {
        let what = match self {
            Of::Width => "width",
            Of::Speed => "speed",
        };
        format!("{when}_link_{what}")
    }

    /// `16` lanes, `8.0 GT/s PCIe`; nothing where the kernel does not know it.
    fn number(self, text: &str) -> Option<f64> {
        let number: f64 = text.split_whitespace().next()?.parse().ok()?;
        let is_known = match self {
            Of::Width => (1.0..=LANES_MAX).contains(&number),
            Of::Speed => number.is_finite() && number > 0.0 && text.contains("GT/s"),
        };
        is_known.then_some(number)
    }

    /// What is now, of what both ends can.
    fn share(self, now: f64, most: f64) -> Observation {
        let unit = match self {
            Of::Width => "% of the lanes",
            Of::Speed => "% of the speed",
        };
        Observation::measured(now / most * 100.0, unit)
    }
}

/// What a device's link is now and can be: the lesser of both ends.
///
/// # Errors
/// What is observed instead: a device without a link of its own is skipped, one that says what it can and not what it does is unread.
fn now_and_most(root: &Root, pci: &str, of: Of) -> Result<(f64, f64), Observation> {
    let folder = format!("{DEVICES}/{pci}");
    let value = |folder: &str, when: &str| {
        root.detail(&format!("{folder}/{}", of.attribute(when))).and_then(|text| of.number(&text))
    };
    let unsaid = |when: &str| format!("{pci} says no {}", of.attribute(when));
    // What a card lends out (SR-IOV) has the card's link, and says what it likes of it.
    if root.exists(&format!("{folder}/physfn")) {
        return Err(Observation::Absent {
            why: format!("{pci} is a virtual function and has no link of its own"),
        });
    }
    // What sleeps without power has no link now.
    if root.detail(&format!("{folder}/power/runtime_status")).as_deref() == Some("suspended") {
        return Err(Observation::Absent { why: format!("{pci} sleeps, and its link with it") });
    }
    // Its status is reserved in a virtual function (SR-IOV 1.1, 3.5.4), also where a guest sees nothing else of it.
    if root.detail(&format!("{folder}/current_link_width")).as_deref() == Some("0") {
        return Err(Observation::Absent { why: format!("{pci} has no status of a link of its own") });
    }
    let own = value(&folder, "max").ok_or_else(|| Observation::Absent { why: unsaid("max") })?;
    let now = value(&folder, "current").ok_or_else(|| Observation::Unreadable { why: unsaid("current") })?;
    // The port is the folder that the device's own lies in; a device on the root bus itself has none.
    let parts = root.resolved(&folder);
    let port = parts.len().checked_sub(2).map(|at| format!("{DEVICES}/{}", parts[at]));
    let ports = port.and_then(|port| value(&port, "max")).unwrap_or(own);
    Ok((now, own.min(ports)))
}

/// What links reached, by the addresses of their devices, with what was read.
pub(super) type Speeds = BTreeMap<String, (Observation, String)>;

/// A device's link now, with what was read.
pub(super) fn observed(root: &Root, pci: &str, of: Of) -> (Observation, String) {
    match now_and_most(root, pci, of) {
        Ok((now, most)) => (of.share(now, most), format!("{DEVICES}/{pci}: {now} of {most}")),
        Err(instead) => (instead, String::new()),
    }
}

/// Puts a load on devices, and looks meanwhile how fast their links get: once at least, and every so often.
pub(super) fn fastest<T>(root: &Root, devices: &[String], load: impl FnOnce() -> T) -> (T, Speeds) {
    std::thread::scope(|scope| {
        let (over, ended) = channel::<()>();
        let looks = scope.spawn(move || {
            let mut best: BTreeMap<String, Result<(f64, f64), Observation>> = BTreeMap::new();
            loop {
                for pci in devices {
                    let now = now_and_most(root, pci, Of::Speed);
                    let known = best.entry(pci.clone()).or_insert_with(|| now.clone());
                    let is_faster = match (&now, &*known) {
                        (Ok((now, _)), Ok((so_far, _))) => now > so_far,
                        (Ok(_), Err(_)) => true,
                        (Err(_), _) => false,
                    };
                    if is_faster {
                        *known = now;
                    }
                }
                if !matches!(ended.recv_timeout(SAMPLE_PAUSE), Err(RecvTimeoutError::Timeout)) {
                    return best;
                }
            }
        });
        let loaded = load();
        drop(over);
        let best = looks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let said = best.into_iter().map(|(pci, found)| {
            let observed = match found {
                Ok((now, most)) => {
                    (Of::Speed.share(now, most), format!("{DEVICES}/{pci}: {now} of {most} GT/s"))
                }
                Err(instead) => (instead, String::new()),
            };
            (pci, observed)
        });
        (loaded, said.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::fixture::Machine;

    const DEVICE: &str = "0000:65:00.0";
    const PORT: &str = "0000:64:00.0";

    /// A device on a port: what each says of width and speed, now and at most.
    fn machine(device: [&str; 4], port: [&str; 2]) -> Machine {
        let machine = Machine::empty();
        let own = format!("/sys/devices/pci0000:64/{PORT}/{DEVICE}");
        for (name, value) in ["current_link_width", "max_link_width", "current_link_speed", "max_link_speed"]
            .iter()
            .zip(device)
        {
            machine.write(&format!("{own}/{name}"), format!("{value}\n"));
        }
        for (name, value) in ["max_link_width", "max_link_speed"].iter().zip(port) {
            machine.write(&format!("/sys/devices/pci0000:64/{PORT}/{name}"), format!("{value}\n"));
        }
        machine.link(&format!("{DEVICES}/{DEVICE}"), &format!("../../../devices/pci0000:64/{PORT}/{DEVICE}"));
        machine.link(&format!("{DEVICES}/{PORT}"), &format!("../../../devices/pci0000:64/{PORT}"));
        machine
    }

    /// What is said of width and speed, in percent; nothing where it is skipped.
    fn percent(machine: &Machine) -> [Option<f64>; 2] {
        [Of::Width, Of::Speed].map(|of| match observed(&machine.root, DEVICE, of).0 {
            Observation::Measured { value, .. } => value,
            Observation::Absent { .. } => None,
            // Nothing is as much as that.
            Observation::Unreadable { .. } => Some(f64::INFINITY),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_link_is_held_against_the_lesser_of_its_ends() {
        let fast = "16.0 GT/s PCIe";
        for (device, port, wanted) in [
            (["4", "4", fast, fast], ["16", "32.0 GT/s PCIe"], [Some(100.0), Some(100.0)]),
            (["2", "4", "8.0 GT/s PCIe", fast], ["16", fast], [Some(50.0), Some(50.0)]),
            // A slot that is narrower than the card, and of an older generation, does what it can.
            (["4", "16", "8.0 GT/s PCIe", fast], ["4", "8.0 GT/s PCIe"], [Some(100.0), Some(100.0)]),
            // A port that says nothing limits nothing.
            (["4", "4", fast, fast], ["", "Unknown"], [Some(100.0), Some(100.0)]),
            // An emulated one has no link.
            (["0", "0", "Unknown", "Unknown"], ["0", "Unknown"], [None, None]),
            // What is not said of what there is is no pass.
            (["63", "4", "Unknown", fast], ["16", fast], [Some(f64::INFINITY), Some(f64::INFINITY)]),
            (["4", "63", fast, ""], ["16", fast], [None, None]),
        ] {
            assert_eq!(percent(&machine(device, port)), wanted, "{device:?} {port:?}");
        }
        assert_eq!(percent(&Machine::empty()), [None, None]);
        // A function that a card lends out, as its host and as a guest see it.
        let lent = machine(["0", "16", "Unknown", fast], ["16", fast]);
        assert_eq!(percent(&lent), [None, None]);
        lent.write(&format!("/sys/devices/pci0000:64/{PORT}/{DEVICE}/physfn"), "");
        assert_eq!(percent(&lent), [None, None]);
        let asleep = machine(["63", "16", "Unknown", fast], ["16", fast]);
        asleep.write(&format!("/sys/devices/pci0000:64/{PORT}/{DEVICE}/power/runtime_status"), "suspended\n");
        assert_eq!(percent(&asleep), [None, None]);
    }

    /// Links of resting devices go slow: what counts is the fastest under load.
    #[test]
    fn the_fastest_of_a_load_counts() {
        let machine = machine(["4", "4", "2.5 GT/s PCIe", "16.0 GT/s PCIe"], ["4", "16.0 GT/s PCIe"]);
        let speed = format!("/sys/devices/pci0000:64/{PORT}/{DEVICE}/current_link_speed");
        let devices = [DEVICE.to_owned(), "0000:66:00.0".to_owned()];
        let ((), seen) = fastest(&machine.root, &devices, || {});
        assert_eq!(seen[DEVICE].0, Observation::measured(15.625, "% of the speed"));
        assert!(matches!(seen["0000:66:00.0"].0, Observation::Absent { .. }));
        machine.write(&speed, "16.0 GT/s PCIe\n");
        let ((), seen) = fastest(&machine.root, &devices, || {});
        assert_eq!(seen[DEVICE].0, Observation::measured(100.0, "% of the speed"));
    }
}
