//! The homes of agents that share a file system with this server: where they lie, what their files say, and how what a
//! runtime knows comes into them. Blocking.
//!
//! The folders above the first placeholder are the operator's and trusted; what lies beneath belongs to agents and may be
//! anything. A home is opened over no symbolic link, and a file that is none of ours is named and left alone.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use groundcrew_durable::agent_info::{open_home, read, sweep, update};
use groundcrew_durable::{Error, Result};
use groundcrew_protocol::agent_info::{AgentInfo, FILE_NAME, RuntimeFact, reconcile};

/// The placeholders of a template.
const NAMESPACE: &str = "{namespace}";
const AGENT: &str = "{agent}";
/// Homes that are looked at: twice as many agents as one orchestrator is measured with.
const HOMES_MAX: usize = 20_000;
/// Longest name of an agent or a namespace, in bytes: that of Kubernetes' names.
const NAME_BYTES_MAX: usize = 253;
/// How long a pass waits for the lock of one file; the next pass tries again.
const LOCK_WAIT: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Fixed(OsString),
    Namespace,
    Agent,
}

/// Where homes lie: a path whose components may be `{namespace}` and `{agent}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homes {
    /// What is trusted.
    root: PathBuf,
    /// What lies beneath: at least one component.
    within: Vec<Part>,
}

/// A home that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The agent's namespace; empty where the template has none.
    pub namespace: String,
    /// The agent's name; where the template has none, the name of the folder.
    pub name: String,
    within: PathBuf,
}

impl Home {
    /// Where it lies below the operator's folder.
    pub fn place(&self) -> &Path {
        &self.within
    }
}

/// What was found of homes.
#[derive(Debug)]
pub struct Found {
    /// Those that are looked at, in order.
    pub homes: Vec<Home>,
    /// How many are not looked at.
    pub left_out: u64,
    /// Folders that could not be listed.
    pub hidden: Vec<Hidden>,
}

/// A folder of homes that could not be listed.
#[derive(Debug)]
pub struct Hidden {
    /// The namespace that it is of; empty where it is of none, or of all.
    of: String,
    /// Which.
    pub folder: PathBuf,
    /// Why not.
    pub error: std::io::Error,
}

impl Hidden {
    /// Whether homes of this namespace may lie in it.
    pub fn may_hold(&self, namespace: &str) -> bool {
        self.of.is_empty() || self.of == namespace
    }
}

impl FromStr for Homes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Homes, String> {
        let path = Path::new(text);
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => parts.push(match name.to_str() {
                    Some(NAMESPACE) => Part::Namespace,
                    Some(AGENT) => Part::Agent,
                    Some(name) if name.contains(['{', '}']) => return Err(expected(text)),
                    _ => Part::Fixed(name.to_owned()),
                }),
                Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(expected(text));
                }
            }
        }
        let count = |wanted: &Part| parts.iter().filter(|part| *part == wanted).count();
        let (namespaces, agents) = (count(&Part::Namespace), count(&Part::Agent));
        if !path.is_absolute() || parts.is_empty() || namespaces > 1 || agents > 1 || namespaces > agents {
            return Err(expected(text));
        }
        let is_fixed = |part: &Part| matches!(part, Part::Fixed(_));
        let fixed = parts.iter().take_while(|part| is_fixed(part)).count().min(parts.len() - 1);
        let within = parts.split_off(fixed);
        let names = parts.into_iter().map(|part| match part {
            Part::Fixed(name) => name,
            Part::Namespace | Part::Agent => unreachable!("only fixed components were taken"),
        });
        Ok(Homes { root: Path::new("/").join(names.collect::<PathBuf>()), within })
    }
}

fn expected(text: &str) -> String {
    format!(
        "found {text:?}, expected an absolute path such as /srv/{NAMESPACE}/{AGENT} or /srv/agents/{AGENT}"
    )
}

impl Homes {
    /// The home of an agent of this name.
    pub fn home_of(&self, namespace: &str, name: &str) -> Option<Home> {
        if !is_name(name) || !(namespace.is_empty() || is_name(namespace)) {
            return None;
        }
        let parts = self.within.iter().map(|part| match part {
            Part::Fixed(fixed) => fixed.clone(),
            Part::Namespace => namespace.into(),
            Part::Agent => name.into(),
        });
        Some(Home { namespace: namespace.into(), name: name.into(), within: parts.collect() })
    }

    /// The homes that are there, in order. A folder of agents that cannot be listed hides those in it and no others.
    ///
    /// # Errors
    /// Where the operator's own folder cannot be listed.
    pub fn found(&self) -> std::io::Result<Found> {
        let first = Home { namespace: String::new(), name: String::new(), within: PathBuf::new() };
        let (mut found, mut left_out, mut hidden) = (vec![first], 0, Vec::new());
        for part in &self.within {
            let mut next = Vec::new();
            for home in found {
                match part {
                    Part::Fixed(name) => {
                        let name_of_it = if home.name.is_empty() {
                            name.to_string_lossy().into_owned()
                        } else {
                            home.name
                        };
                        next.push(Home { name: name_of_it, within: home.within.join(name), ..home });
                    }
                    Part::Namespace | Part::Agent => {
                        let folder = self.root.join(&home.within);
                        let names = match folders_in(&folder) {
                            Ok(names) => names,
                            Err(error) if home.within.as_os_str().is_empty() => return Err(error),
                            Err(error) => {
                                hidden.push(Hidden { of: home.namespace, folder, error });
                                continue;
                            }
                        };
                        for name in names {
                            let within = home.within.join(&name);
                            next.push(match part {
                                Part::Namespace => Home { namespace: name, name: home.name.clone(), within },
                                Part::Agent | Part::Fixed(_) => {
                                    Home { namespace: home.namespace.clone(), name, within }
                                }
                            });
                        }
                    }
                }
            }
            left_out += next.len().saturating_sub(HOMES_MAX) as u64;
            next.truncate(HOMES_MAX);
            found = next;
        }
        Ok(Found { homes: found, left_out, hidden })
    }

    /// Where an agent's file lies.
    pub fn path(&self, home: &Home) -> PathBuf {
        self.root.join(&home.within).join(FILE_NAME)
    }

    fn open(&self, home: &Home) -> Result<Option<OwnedFd>> {
        open_home(&self.root, &home.within)
    }

    /// What an agent's file says; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be read, or is no JSON object.
    pub fn read(&self, home: &Home) -> Result<Option<AgentInfo>> {
        let Some(opened) = self.open(home)? else { return Ok(None) };
        Ok(read(opened, &self.path(home))?.map(|fields| AgentInfo::of(&fields)))
    }

    /// Brings what a runtime knows into an agent's file, and gives what that says then. Nothing is written where nothing
    /// changes, nor where there is no file: an agent that never wrote one has no word to correct.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub fn persist(&self, home: &Home, fact: &RuntimeFact) -> Result<Option<AgentInfo>> {
        let path = self.path(home);
        // Looked at before the lock: a pass over homes that agree leaves no trace in them.
        let Some(said) = self.read(home)? else { return Ok(None) };
        if reconcile(&said, fact).is_none() {
            return Ok(Some(said));
        }
        let Some(opened) = self.open(home)? else { return Ok(None) };
        sweep(&opened, path.parent().unwrap_or(&path))?;
        let mut after = None;
        update(opened, &path, LOCK_WAIT, |fields| {
            after = None;
            if fields.is_empty() {
                return false;
            }
            let mut said = AgentInfo::of(fields);
            let change = reconcile(&said, fact);
            if let Some(change) = &change {
                change.apply(fields);
                change.apply_to(&mut said);
            }
            after = Some(said);
            change.is_some()
        })?;
        Ok(after)
    }
}

/// Whether the failure is the file's own, which only its agent or an operator mends, and no lack of rights or room.
pub fn is_of_content(error: &Error) -> bool {
    matches!(
        error,
        Error::Malformed { .. } | Error::NotAFile { .. } | Error::TooLarge { .. } | Error::LeadsOut { .. }
    )
}

fn is_name(name: &str) -> bool {
    let is_plain = Path::new(name).components().eq([Component::Normal(name.as_ref())]);
    is_plain && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && !name.chars().any(char::is_control)
}

/// The names of folders in a folder, sorted; none where it is not there. Links are among them, so that opening says why
/// they are refused; nothing is looked for behind one.
fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let is_link = folder.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        _ if is_link => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name().into_string().ok().filter(|name| is_name(name));
        if let Some(name) = name.filter(|_| kind.is_dir() || kind.is_symlink()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests;
