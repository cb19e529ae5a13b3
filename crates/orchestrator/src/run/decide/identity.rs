//! Is the machine of a claim the run's node? Another one is refused; one that cannot say which it is, is let in and
//! shown, and the first stage cannot pass without an override.

use groundcrew_protocol::check::{Check, Limit, Observation};
use groundcrew_protocol::plan::names;

use super::step::Step;
use crate::run::state::{Machine, Run};

/// How what is registered of a node compares with what a machine says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nothing is registered but a name.
    Unregistered,
    /// By its serial or an address, which is named.
    Proved(String),
    /// What is registered is not what the machine says anything of.
    Unproved(String),
    /// Another machine.
    Other,
}

/// Firmware and people write one serial with spaces around it and in either case.
pub(super) fn is_same_serial(one: &str, other: &str) -> bool {
    one.trim().eq_ignore_ascii_case(other.trim())
}

/// Compares them. A serial decides alone: interfaces are exchanged, and boards keep theirs.
pub(super) fn compare(node_is: &Machine, machine: &Machine) -> Identity {
    if let (Some(expected), Some(found)) = (&node_is.serial, &machine.serial) {
        return match is_same_serial(expected, found) {
            true => Identity::Proved(format!("serial {}", expected.trim())),
            false => Identity::Other,
        };
    }
    if !node_is.macs.is_empty() && !machine.macs.is_empty() {
        return match node_is.macs.iter().find(|mac| machine.macs.contains(mac)) {
            Some(mac) => Identity::Proved(format!("MAC {mac}")),
            None => Identity::Other,
        };
    }
    if node_is.serial.is_none() && node_is.macs.is_empty() {
        return Identity::Unregistered;
    }
    let lacks = match (&node_is.serial, node_is.macs.is_empty()) {
        (Some(_), true) => "a serial",
        (None, _) => "an address",
        (Some(_), false) => "a serial or an address",
    };
    let node = node_is.describe();
    Identity::Unproved(format!("the node is registered with {node}; its agent could not read {lacks}"))
}

/// Why nobody can tell that the machine of the current claim is the run's node; `None` where it is known, or nothing is
/// registered to tell it by.
pub fn unproved(run: &Run) -> Option<String> {
    match compare(&run.node_is, &run.claim.as_ref()?.machine) {
        Identity::Unproved(why) => Some(why),
        Identity::Unregistered | Identity::Proved(_) | Identity::Other => None,
    }
}

/// The check of it, which the first stage that an agent does has beside the planned ones.
///
/// A claim of protocol 1 never says which machine it comes from, so that nothing could ever mend the check: that nobody can
/// tell is shown, and its result is an agent's word as everything of it.
pub(super) fn check(step: &Step) -> Option<Check> {
    let run = &step.run;
    if run.claim.as_ref()?.protocol == 1 {
        return None;
    }
    let first = run.stages.iter().position(|stage| !stage.spec.name.is_orchestrators());
    if first != Some(run.at) {
        return None;
    }
    let observed = match compare(&run.node_is, &run.claim.as_ref()?.machine) {
        Identity::Unregistered => return None,
        Identity::Proved(by) => Observation::Found { text: by },
        Identity::Unproved(why) => Observation::Unreadable { why },
        // No claim lets it in. Were it here, it would be no pass.
        Identity::Other => Observation::Missing { what: run.node_is.describe() },
    };
    Some(Check::of(names::IDENTITY, None, observed, Limit::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(serial: &str, macs: &[&str]) -> Machine {
        let serial = (!serial.is_empty()).then(|| serial.to_owned());
        Machine { serial, macs: macs.iter().map(|mac| mac.parse().unwrap()).collect() }
    }

    #[test]
    fn a_machine_is_the_node_another_or_cannot_say() {
        const ONE: &str = "02:00:00:00:00:01";
        const TWO: &str = "02:00:00:00:00:02";
        for (node, found, wanted) in [
            (machine("", &[]), machine("A", &[ONE]), "Unregistered"),
            (machine("A", &[ONE]), machine(" a ", &[TWO]), "Proved(\"serial A\")"),
            (machine("A", &[ONE]), machine("B", &[ONE]), "Other"),
            (machine("A", &[ONE]), machine("", &[TWO, ONE]), "Proved(\"MAC 02:00:00:00:00:01\")"),
            (machine("", &[ONE]), machine("B", &[TWO]), "Other"),
            (machine("A", &[]), machine("", &[ONE]), "could not read a serial\""),
            (machine("A", &[ONE]), machine("", &[]), "could not read a serial or an address\""),
            (machine("", &[ONE]), machine("A", &[]), "could not read an address\""),
        ] {
            let compared = format!("{:?}", compare(&node, &found));
            assert!(compared.contains(wanted), "{node:?} with {found:?}: {compared}");
        }
    }
}
