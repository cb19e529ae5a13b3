//! The agent of a home, as far as a caller beside it can ask or know it.

use std::path::Path;
use std::time::Duration;

use groundcrew_durable::agent_info;
use groundcrew_durable::drain_marker::MAX_AGE_DEFAULT;
use groundcrew_durable::drain_marker::sighting::{Now, Reader};
use groundcrew_durable::drain_marker::write::When;
use groundcrew_durable::epoch::{PROC, boot_epoch};
use groundcrew_protocol::agent_info::{AgentInfo, FILE_NAME};

use super::Asked;
use crate::drain::socket::{self, ask};
use crate::drain::status::{DrainStatus, Status, by_marker};
use crate::interrupt::boot_id;

/// How long the agent may take to answer: more than it allows itself for a disk that hangs.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest refusal that is shown, in characters.
const REFUSAL_CHARS_MAX: usize = 300;

/// By whose epoch and greatest age a marker is written.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub epoch: String,
    /// This boot's id, which is the machine's and so the agent's too.
    pub boot_id: String,
    pub max_age: Duration,
}

impl Rules {
    /// The agent's own: from its socket, else its file in the home where that is of this boot, else what this process sees of the
    /// machine. On a host
    /// whose agent lives in a container that last one is another epoch than the agent's.
    pub fn of(asked: &Asked) -> Rules {
        let boot_id = boot_id::known(Path::new(PROC)).map(|id| id.to_string()).unwrap_or_default();
        if let Ok(status) = status(&asked.home) {
            return Rules { epoch: status.epoch, boot_id, max_age: Duration::from_millis(status.max_age_ms) };
        }
        let epoch = epoch_in_file(&asked.home, &boot_id).unwrap_or_else(|| boot_epoch(Path::new(PROC)));
        Rules { epoch, boot_id, max_age: asked.max_age.unwrap_or(MAX_AGE_DEFAULT) }
    }

    pub fn now(&self) -> When<'_> {
        When { epoch: &self.epoch, boot_id: &self.boot_id, now: Now::read(), max_age: self.max_age }
    }
}

/// What an agent has left there in this boot: one of an earlier boot would have the marker read as absent from the beginning.
fn epoch_in_file(home: &Path, boot_id: &str) -> Option<String> {
    let opened = agent_info::open_own_home(home).ok()?;
    let fields = agent_info::read(opened, &home.join(FILE_NAME)).ok()??;
    let is_of_this_boot = |epoch: &String| {
        let boot = epoch.split_once(':').map_or("", |(boot, _process_1)| boot);
        boot.is_empty() || boot_id.is_empty() || boot == boot_id
    };
    AgentInfo::of(&fields).epoch.filter(|epoch| !epoch.is_empty()).filter(is_of_this_boot)
}

/// The agent's own word; the error says why there is none.
pub(super) fn status(home: &Path) -> Result<Status, String> {
    let place = home.join(socket::FILE_NAME);
    let (code, body) = ask(home, "GET", "/api/status", "", ANSWER)
        .map_err(|error| format!("no agent answers at {}: {error}", place.display()))?;
    if code != 200 {
        let text: String = String::from_utf8_lossy(&body).chars().take(REFUSAL_CHARS_MAX).collect();
        return Err(format!("the agent at {} answers {code}: {text}", place.display()));
    }
    serde_json::from_slice(&body).map_err(|error| {
        format!("the agent at {} answers what this version does not know: {error}", place.display())
    })
}

/// What the marker alone says, where no agent answers.
pub(super) fn marker(asked: &Asked) -> DrainStatus {
    let rules = Rules::of(asked);
    let mut reader = Reader::new(&asked.home, &rules.boot_id, rules.max_age);
    by_marker(&reader.peek(&rules.epoch, Now::read()))
}
