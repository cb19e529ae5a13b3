//! Stages of a run and the states that a run can be in, with their names on the wire.

use serde::{Deserialize, Serialize};

/// What a run does at one place of its pipeline.
///
/// The name of a stage is the name of its state, except that stage `Inventory` is state `InventoryCheck`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Stage {
    /// Counts and reads the hardware.
    Inventory,
    /// Compares the inventory with the profile. The orchestrator's own.
    SpecValidate,
    /// Disk health.
    Smart,
    /// CPU under load, verified.
    CpuStress,
    /// Memory under load, verified.
    Memory,
    /// Disks read, or written and verified.
    Storage,
    /// Throughput and errors of network links.
    Network,
    /// GPUs.
    Gpu,
    /// Everything under load together.
    Soak,
    /// Power supplies.
    Psu,
    /// Builds the report. The orchestrator's own, and the last of every run.
    Reporting,
    /// A mode of a package.
    Package {
        /// Name of the package.
        name: String,
        /// One of its modes, as `apply`.
        mode: String,
    },
    /// An interrupt that the profile names.
    Interrupt {
        /// The name in the profile.
        name: String,
    },
    /// A stage of a newer version, kept as it came.
    Unknown(String),
}

impl Stage {
    /// True where the orchestrator resolves the stage itself, inside the answer to a result.
    pub fn is_orchestrators(&self) -> bool {
        matches!(self, Stage::SpecValidate | Stage::Reporting)
    }

    /// What the stage does that a profile lists; `None` for a stage of a single word.
    pub fn listed(&self) -> Option<Listed<'_>> {
        match self {
            Stage::Interrupt { name } => Some(Listed::Interrupt { name }),
            Stage::Package { name, mode } => Some(Listed::Package { name, mode }),
            Stage::Inventory
            | Stage::SpecValidate
            | Stage::Smart
            | Stage::CpuStress
            | Stage::Memory
            | Stage::Storage
            | Stage::Network
            | Stage::Gpu
            | Stage::Soak
            | Stage::Psu
            | Stage::Reporting
            | Stage::Unknown(_) => None,
        }
    }

    /// True for an interrupt: one that the profile names, or a package's.
    pub fn is_interrupt(&self) -> bool {
        match self.listed() {
            Some(Listed::Interrupt { .. }) => true,
            Some(Listed::Package { mode, .. }) => mode == "interrupt",
            None => false,
        }
    }
}

/// What a stage names that its profile lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed<'a> {
    /// A package, of `[[package]]`.
    Package {
        /// Its name.
        name: &'a str,
        /// What it is asked for.
        mode: &'a str,
    },
    /// An interrupt, of `[[interrupt]]`.
    Interrupt {
        /// Its name.
        name: &'a str,
    },
}

/// The stages whose names are a single word.
const WORDS: [(Stage, &str); 11] = [
    (Stage::Inventory, "Inventory"),
    (Stage::SpecValidate, "SpecValidate"),
    (Stage::Smart, "SMART"),
    (Stage::CpuStress, "CPUStress"),
    (Stage::Memory, "Memory"),
    (Stage::Storage, "Storage"),
    (Stage::Network, "Network"),
    (Stage::Gpu, "GPU"),
    (Stage::Soak, "Soak"),
    (Stage::Psu, "PSU"),
    (Stage::Reporting, "Reporting"),
];

/// The names of all stages that are a single word, for messages that say what was expected.
pub fn stage_words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(_, word)| *word)
}

impl From<String> for Stage {
    fn from(text: String) -> Stage {
        if let Some((stage, _)) = WORDS.iter().find(|(_, word)| *word == text) {
            return stage.clone();
        }
        if let Some((name, mode)) = text.strip_prefix("Package:").and_then(|rest| rest.split_once('/')) {
            return Stage::Package { name: name.to_owned(), mode: mode.to_owned() };
        }
        if let Some(name) = text.strip_prefix("Interrupt:") {
            return Stage::Interrupt { name: name.to_owned() };
        }
        Stage::Unknown(text)
    }
}

impl From<&str> for Stage {
    fn from(text: &str) -> Stage {
        Stage::from(text.to_owned())
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stage::Package { name, mode } => write!(f, "Package:{name}/{mode}"),
            Stage::Interrupt { name } => write!(f, "Interrupt:{name}"),
            Stage::Unknown(text) => f.write_str(text),
            word => {
                let (_, text) =
                    WORDS.iter().find(|(stage, _)| stage == word).expect("every other stage is a word");
                f.write_str(text)
            }
        }
    }
}

impl From<Stage> for String {
    fn from(stage: Stage) -> String {
        stage.to_string()
    }
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum State {
    /// At a stage: its turn has come, or it is being done.
    At(Stage),
    /// Held for an operator's decision.
    FailedHolding,
    /// Ended: every stage was passed, skipped or overridden.
    Completed,
    /// Ended by an operator (cancel, release, abort) or by the end of a hold that nobody decided.
    Cancelled,
}

impl State {
    /// True where nothing more happens to the run.
    pub fn is_ended(&self) -> bool {
        match self {
            State::Completed | State::Cancelled => true,
            State::At(_) | State::FailedHolding => false,
        }
    }

    /// The stage at which the run stands, where it is one that an agent does.
    pub fn agent_stage(&self) -> Option<&Stage> {
        match self {
            State::At(stage) if !stage.is_orchestrators() && !matches!(stage, Stage::Unknown(_)) => {
                Some(stage)
            }
            State::At(_) | State::FailedHolding | State::Completed | State::Cancelled => None,
        }
    }
}

impl From<String> for State {
    fn from(text: String) -> State {
        match text.as_str() {
            "InventoryCheck" => State::At(Stage::Inventory),
            "FailedHolding" => State::FailedHolding,
            "Completed" => State::Completed,
            "Cancelled" => State::Cancelled,
            // The stage's name is no state: it stays unknown, and parks whoever reads it.
            "Inventory" => State::At(Stage::Unknown(text)),
            _ => State::At(Stage::from(text)),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::At(Stage::Inventory) => f.write_str("InventoryCheck"),
            State::At(stage) => stage.fmt(f),
            State::FailedHolding => f.write_str("FailedHolding"),
            State::Completed => f.write_str("Completed"),
            State::Cancelled => f.write_str("Cancelled"),
        }
    }
}

impl From<State> for String {
    fn from(state: State) -> String {
        state.to_string()
    }
}

#[cfg(feature = "openapi")]
mod openapi {
    use utoipa::openapi::{RefOr, schema};

    fn text(description: &str) -> RefOr<schema::Schema> {
        schema::ObjectBuilder::new().schema_type(schema::Type::String).description(Some(description)).into()
    }

    impl utoipa::PartialSchema for super::Stage {
        fn schema() -> RefOr<schema::Schema> {
            text("Name of a stage, as `Inventory`, `CPUStress`, `Package:NAME/MODE`, `Interrupt:NAME`")
        }
    }
    impl utoipa::ToSchema for super::Stage {}
    impl utoipa::PartialSchema for super::State {
        fn schema() -> RefOr<schema::Schema> {
            text(
                "Where a run stands: `InventoryCheck`, another stage's name, `FailedHolding`, `Completed`, `Cancelled`",
            )
        }
    }
    impl utoipa::ToSchema for super::State {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_out_and_come_back() {
        for text in [
            "Inventory",
            "SMART",
            "CPUStress",
            "GPU",
            "PSU",
            "Package:tuning/apply-check",
            "Interrupt:reboot",
            "New",
        ] {
            assert_eq!(Stage::from(text).to_string(), text);
        }
        for text in
            ["InventoryCheck", "SMART", "FailedHolding", "Completed", "Cancelled", "SpecValidate", "New"]
        {
            assert_eq!(State::from(text.to_owned()).to_string(), text);
        }
        assert_eq!(State::from("InventoryCheck".to_owned()), State::At(Stage::Inventory));
        assert_eq!(State::from("Inventory".to_owned()).agent_stage(), None);
    }
}
