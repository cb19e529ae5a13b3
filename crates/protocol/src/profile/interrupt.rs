//! Interrupts of a profile: `[[interrupt]]`, which the stages `Interrupt:NAME` name, and `[package.interrupt]`, which the
//! stage `Package:NAME/interrupt` does.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::package::{ROOT_FORM, is_name_of, is_root, root_mount};
use super::part::{Field, Part, one_of};
use crate::text_enum::text_enum;

const INTERRUPT_KEYS: [&str; 5] = ["name", "type", "services", "drain", "root_mount"];
const PACKAGE_INTERRUPT_KEYS: [&str; 3] = ["type", "services", "drain"];
/// Every type, in the order in which package agents list them.
const KINDS: [&str; 5] =
    ["no_op", "node_restart", "restart_all_services", "script_interrupt", "service_restart"];
/// Greatest number of interrupts of a profile: one for each stage.
const INTERRUPTS_MAX: usize = crate::limits::STAGES_MAX;
/// Greatest number of services of one interrupt. An agent is told them with the stage.
const SERVICES_MAX: usize = 64;
/// Longest name of a unit, as systemd has it (`UNIT_NAME_MAX`).
const SERVICE_BYTES_MAX: usize = 255;

text_enum! {
    /// What an interrupt does to a node.
    InterruptKind {
        /// Nothing. That it was asked for is noted.
        NoOp = "no_op",
        /// The machine is rebooted.
        NodeRestart = "node_restart",
        /// Every service is told to read its settings again.
        RestartAllServices = "restart_all_services",
        /// Kept for operators that send it; it has no command.
        ScriptInterrupt = "script_interrupt",
        /// systemd reads its units again, then restarts those that are named.
        ServiceRestart = "service_restart",
    }
}

/// An interrupt of a profile, as the stage `Interrupt:NAME` or `Package:NAME/interrupt` does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InterruptSettings {
    /// Its name, or that of its package. Without underscores: a resource id is parted by them.
    pub name: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: InterruptKind,
    /// The units that `service_restart` restarts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The node is drained for it first: the node's hooks run, and nothing else starts until it has ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
    /// The root file system that its commands run in, as the node sees it; `local`: in the agent's own.
    #[serde(default = "root_mount")]
    pub root_mount: String,
    /// The time in which its reboot must be seen, in milliseconds, as the run's limits have it; absent for anything but
    /// `node_restart`, in what is stored, and from an orchestrator that does not say. The agent waits that long for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_ms: Option<u64>,
}

/// The interrupt of a package (`[package.interrupt]`): its name and root are the package's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageInterrupt {
    /// What it does.
    #[serde(rename = "type")]
    pub kind: InterruptKind,
    /// The units that `service_restart` restarts, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// The node is drained for it first.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drain: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Reads `[[interrupt]]`.
pub(super) fn interrupts(field: Field<'_>) -> Result<Vec<InterruptSettings>, BadProfile> {
    let name_form = "1 to 128 of a-z, A-Z, 0-9, '-' and '.', with no '.' at its start";
    let mut names = BTreeSet::new();
    let mut interrupts = Vec::new();
    for item in field.items("an array of tables, one for each interrupt", INTERRUPTS_MAX)? {
        let part = item.table(&INTERRUPT_KEYS)?;
        let name = part.needed("name", name_form)?.text_of(name_form, |text| is_name_of(text, b"-."))?;
        if !names.insert(name.clone()) {
            return Err(part.refuse_at("name", &format!("\"{name}\" a second time"), "each interrupt once"));
        }
        let PackageInterrupt { kind, services, drain } = what(&part)?;
        let root = part.optional("root_mount", |field| field.text_of(ROOT_FORM, is_root))?;
        interrupts.push(InterruptSettings {
            name,
            kind,
            services,
            drain,
            root_mount: root.unwrap_or_else(root_mount),
            reboot_ms: None,
        });
    }
    Ok(interrupts)
}

/// Reads `[package.interrupt]`.
pub(super) fn of_package(field: Field<'_>) -> Result<PackageInterrupt, BadProfile> {
    what(&field.table(&PACKAGE_INTERRUPT_KEYS)?)
}

fn what(part: &Part<'_>) -> Result<PackageInterrupt, BadProfile> {
    let expected = format!("one of {}", KINDS.join(", "));
    let field = part.needed("type", &expected)?;
    let kind = match InterruptKind::from(field.raw_text(&expected)?.to_owned()) {
        InterruptKind::Unknown(word) => return Err(field.refuse(&one_of(&word, &KINDS))),
        known @ (InterruptKind::NoOp
        | InterruptKind::NodeRestart
        | InterruptKind::RestartAllServices
        | InterruptKind::ScriptInterrupt
        | InterruptKind::ServiceRestart) => known,
    };
    let services = part.optional("services", services)?;
    let drain = part.optional("drain", |field| field.flag())?.unwrap_or_default();
    match (&kind, services) {
        (InterruptKind::ServiceRestart, None) => {
            Err(part.lacks("services", "the units that service_restart restarts"))
        }
        (InterruptKind::ServiceRestart, Some(services)) => Ok(PackageInterrupt { kind, services, drain }),
        (_without_services, None) => Ok(PackageInterrupt { kind, services: Vec::new(), drain }),
        (_without_services, Some(_)) => {
            let found = format!("services of a {kind}");
            Err(part.refuse_at("services", &found, "none but with type = \"service_restart\""))
        }
    }
}

fn services(field: Field<'_>) -> Result<Vec<String>, BadProfile> {
    let form = "a name of a unit: 1 to 255 bytes on one line, without spaces and no '-' first";
    let is_unit = |text: &str| {
        (1..=SERVICE_BYTES_MAX).contains(&text.len())
            && !text.starts_with('-')
            && !text.chars().any(|letter| letter.is_control() || letter.is_whitespace())
    };
    let items = field.items("an array of names of units", SERVICES_MAX)?;
    if items.is_empty() {
        return Err(field.refuse("at least one unit"));
    }
    items.iter().map(|item| item.text_of(form, is_unit)).collect()
}
