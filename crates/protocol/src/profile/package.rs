//! Packages of a profile (`[[package]]`): where each comes from, where it is put, and what its steps are told.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::interrupt;
use super::part::{Field, Part};
use super::{
    BadProfile, InterruptKind, InterruptSettings, PackageInterrupt, Profile, StageSpec, StorageSettings,
};
use crate::ids::{PackageName, PackageVersion, Sha256Hex};
use crate::stage::Listed;

const PACKAGE_KEYS: [&str; 9] =
    ["name", "version", "path", "sha256", "root_mount", "copy_dir", "interrupt", "env", "config_files"];
/// Greatest number of packages of a profile: one for each stage.
const PACKAGES_MAX: usize = crate::limits::STAGES_MAX;
/// Greatest number of variables, and of config files, of one package.
const TEXTS_MAX: usize = 256;
/// Greatest size of all variables and config files of one package: an agent is told them with each of its stages, and
/// all of that must fit an answer.
const TEXTS_BYTES_MAX: usize = 24 * 1024;
/// Longest path in a profile, in bytes.
const PATH_BYTES_MAX: usize = 1_024;
/// Variables that the stage itself sets.
const OWN_VARIABLES: [&str; 2] = ["SKYHOOK_RESOURCE_ID", "SKYHOOK_DATA_DIR"];
/// How long a step may go on once its stage is to end, in seconds; the package agent reads it.
const TERM_GRACE_VARIABLE: &str = "SKYHOOK_AGENT_TERM_GRACE_S";
/// Longest such time, under the silence that a run allows behind a stage's deadline (15 min unless its profile says less): once
/// that is over the run is held and the attempt withdrawn, and what the step ended with would count for nothing.
const TERM_GRACE_S_MAX: f64 = 600.0;
const TERM_GRACE_FORM: &str = "seconds from 0 to 600, as digits";
/// The root mount that stands for none: the agent's own root, in which steps run as the agent does.
const LOCAL: &str = "local";
pub(super) const ROOT_FORM: &str = "an absolute path of at most 1024 bytes without \"..\", or \"local\"";

/// A package of a profile, as the stages `Package:NAME/MODE` use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PackageSettings {
    /// Its name, as its config.json has it. Without underscores: a resource id is parted by them.
    pub name: PackageName,
    /// Its version, as its config.json has it.
    pub version: PackageVersion,
    /// The folder on the node that holds it. Absent: the orchestrator stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of the archive that the orchestrator stores. A profile may name it; a run always does, so that all of its
    /// stages have the same content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Hex>,
    /// The root file system that it is applied to, as the node sees it; `local`: the agent's own,
    /// in which steps run without a chroot.
    #[serde(default = "root_mount")]
    pub root_mount: String,
    /// Where it is put beneath the root mount. What stands there already is used as it is. Absent: a folder of its own
    /// for each run, anew after each retry by an operator, in `/var/lib/groundcrew/packages/{name}-{version}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_dir: Option<String>,
    /// What its stage `Package:NAME/interrupt` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<PackageInterrupt>,
    /// Environment of its steps.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Texts that are put into its configmaps, by the names of the files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config_files: BTreeMap<String, String>,
}

pub(super) fn root_mount() -> String {
    "/".to_owned()
}

impl Profile {
    /// The packages that come from the orchestrator's store.
    pub fn stored_packages(&self) -> impl Iterator<Item = &PackageSettings> {
        self.packages.iter().filter(|package| package.is_stored())
    }

    /// A stage as its agent is told it: with the settings of the package or the interrupt that it names.
    ///
    /// A package that the orchestrator stores is told beside the stages
    /// ([`stored_packages`](crate::wire::ClaimAnswer::stored_packages)): an agent that knows of no such packages then lacks
    /// the settings of that one stage and says so, rather than lose the whole answer.
    pub fn settled(&self, spec: &StageSpec) -> StageSpec {
        let (package, interrupt) = match spec.name.listed() {
            Some(Listed::Package { name, .. }) => {
                let package = self.packages.iter().find(|package| package.name.as_str() == name);
                let interrupts = package.filter(|_| spec.name.is_interrupt());
                let interrupt = interrupts.and_then(PackageSettings::as_interrupt);
                (package.filter(|package| !package.is_stored()).cloned(), interrupt)
            }
            Some(Listed::Interrupt { name }) => {
                (None, self.interrupts.iter().find(|interrupt| interrupt.name == name).cloned())
            }
            None => (None, None),
        };
        let interrupt = interrupt.map(|settings| {
            let reboots = settings.kind == InterruptKind::NodeRestart;
            InterruptSettings { reboot_ms: reboots.then_some(self.limits.reboot), ..settings }
        });
        // What may be written over goes to the one stage that may.
        let storage = spec.storage.clone().map(|storage| {
            let allowance = storage.destructive.then(|| self.write.clone());
            StorageSettings { allowance, ..storage }
        });
        StageSpec { package, interrupt, storage, ..spec.clone() }
    }
}

impl PackageSettings {
    /// True where it comes from the orchestrator's store, and not from a folder on the node.
    pub fn is_stored(&self) -> bool {
        self.path.is_none()
    }

    /// Its interrupt, by the package's name and in its root.
    fn as_interrupt(&self) -> Option<InterruptSettings> {
        let PackageInterrupt { kind, services, drain } = self.interrupt.clone()?;
        let (name, root_mount) = (self.name.to_string(), self.root_mount.clone());
        Some(InterruptSettings { name, kind, services, drain, root_mount, reboot_ms: None })
    }
}

/// Reads `[[package]]`.
pub(super) fn packages(field: Field<'_>) -> Result<Vec<PackageSettings>, BadProfile> {
    let mut names = BTreeSet::new();
    let mut packages = Vec::new();
    for item in field.items("an array of tables, one for each package", PACKAGES_MAX)? {
        let part = item.table(&PACKAGE_KEYS)?;
        let package = package(&part)?;
        if !names.insert(package.name.clone()) {
            let found = format!("\"{}\" a second time", package.name);
            return Err(part.refuse_at("name", &found, "each package once"));
        }
        packages.push(package);
    }
    Ok(packages)
}

fn package(part: &Part<'_>) -> Result<PackageSettings, BadProfile> {
    let path = |field: Field<'_>| {
        field.text_of("an absolute path of at most 1024 bytes without \"..\"", is_absolute)
    };
    let root = |field: Field<'_>| field.text_of(ROOT_FORM, is_root);
    let package = PackageSettings {
        name: part.needed("name", "the package's name")?.id()?,
        version: part.needed("version", "the package's version")?.id()?,
        path: part.optional("path", path)?,
        sha256: part.optional("sha256", |field| field.id())?,
        root_mount: part.optional("root_mount", root)?.unwrap_or_else(root_mount),
        copy_dir: part.optional("copy_dir", path)?,
        interrupt: part.optional("interrupt", interrupt::of_package)?,
        env: part.optional("env", environment)?.unwrap_or_default(),
        config_files: part
            .optional("config_files", |field| texts(&field, is_file, FILE_FORM))?
            .unwrap_or_default(),
    };
    if package.path.is_some() && package.sha256.is_some() {
        let expected = "none beside path: it is that of an archive that the orchestrator stores";
        return Err(part.refuse_at("sha256", "a sum", expected));
    }
    let texts = package.env.iter().chain(&package.config_files);
    let bytes: usize = texts.map(|(name, text)| name.len() + text.len()).sum();
    if bytes > TEXTS_BYTES_MAX {
        let expected = format!("at most {TEXTS_BYTES_MAX} bytes");
        return Err(part.refuse(&format!("{bytes} bytes of env and config_files"), &expected));
    }
    Ok(package)
}

/// The first stage for which the profile lists nothing, with what it should.
pub(super) fn unlisted<'s>(
    stages: impl IntoIterator<Item = &'s StageSpec>,
    packages: &[PackageSettings],
    interrupts: &[InterruptSettings],
) -> Option<(usize, String)> {
    let lacks = |spec: &StageSpec| match spec.name.listed()? {
        Listed::Package { name, .. } => match packages.iter().find(|package| package.name.as_str() == name) {
            None => Some(format!("a [[package]] with the name \"{name}\"")),
            Some(package) if spec.name.is_interrupt() && package.interrupt.is_none() => {
                Some(format!("a [package.interrupt] of the package \"{name}\""))
            }
            Some(_) => None,
        },
        Listed::Interrupt { name } => {
            let is_listed = interrupts.iter().any(|interrupt| interrupt.name == name);
            (!is_listed).then(|| format!("an [[interrupt]] with the name \"{name}\""))
        }
    };
    stages.into_iter().enumerate().find_map(|(index, spec)| Some((index, lacks(spec)?)))
}

const VARIABLE_FORM: &str = "a name of a variable, 1 to 128 of A-Z, a-z, 0-9 and '_', no digit first, and none of \
                             SKYHOOK_RESOURCE_ID and SKYHOOK_DATA_DIR, which the stage sets";
const FILE_FORM: &str =
    "a name of a file, 1 to 128 of a-z, A-Z, 0-9, '_', '-' and '.', with no '.' at its start";

/// The environment of a package's steps. What would be cut short without a word is refused.
fn environment(field: Field<'_>) -> Result<BTreeMap<String, String>, BadProfile> {
    let environment = texts(&field, is_variable, VARIABLE_FORM)?;
    for (name, field) in field.entries(TEXTS_MAX)? {
        if name == TERM_GRACE_VARIABLE {
            field.text_of(TERM_GRACE_FORM, is_term_grace)?;
        }
    }
    Ok(environment)
}

/// A table of texts.
fn texts(
    field: &Field<'_>,
    is_name: fn(&str) -> bool,
    name_form: &str,
) -> Result<BTreeMap<String, String>, BadProfile> {
    let fits = |text: &str| text.chars().all(|letter| !letter.is_control() || "\n\t".contains(letter));
    let mut texts = BTreeMap::new();
    for (name, field) in field.entries(TEXTS_MAX)? {
        if !is_name(&name) {
            return Err(field.refuse_key(&name, name_form));
        }
        texts.insert(name, field.text_of("a text without control characters but tabs and line ends", fits)?);
    }
    Ok(texts)
}

pub(super) fn is_name_of(text: &str, more: &[u8]) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
}

fn is_file(text: &str) -> bool {
    is_name_of(text, b"_-.")
}

fn is_variable(text: &str) -> bool {
    is_name_of(text, b"_")
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && !OWN_VARIABLES.contains(&text)
}

/// As the package agent reads it, but for the limit. Empty is as if it were not set.
fn is_term_grace(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let in_range = |seconds: f64| (0.0..=TERM_GRACE_S_MAX).contains(&seconds);
    text.is_empty() || (digits && text.parse().is_ok_and(in_range))
}

pub(super) fn is_root(text: &str) -> bool {
    text == LOCAL || is_absolute(text)
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= PATH_BYTES_MAX
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| part != ".." && part != ".")
}
