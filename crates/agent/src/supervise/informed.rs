//! Keeps the file in the home informed: what the control loop knows, in the file's words.

use groundcrew_protocol::agent_info::InfoPhase;
use groundcrew_protocol::ids::ClaimNumber;

use super::{Agent, StartError, system};
use crate::console::Console;
use crate::control::core::{Core, Facts};
use crate::errors::chain;
use crate::home::Home;
use crate::info::{InfoFile, Standing, Writer};
use crate::settings::Settings;

/// Starts the writer.
pub(super) fn start(
    settings: &Settings,
    home: &Home,
    facts: &Facts,
    console: Console,
) -> Result<InfoFile, StartError> {
    let writer = Writer {
        run: settings.run.clone(),
        runtime: facts.runtime.clone(),
        epoch: facts.boot_epoch.clone(),
        session: facts.session.clone(),
    };
    InfoFile::start(home.path(), writer, console).map_err(system("the thread of agent-info.json"))
}

/// The last word: of an agent that ended in order under a claim, or could not start.
pub(super) fn last_word(ended: &Result<Option<ClaimNumber>, StartError>) -> Standing {
    match ended {
        Ok(claim) => Standing::ended(InfoPhase::Stopped, String::new(), *claim),
        Err(error) => Standing::ended(InfoPhase::Error, chain(error), None),
    }
}

fn standing(core: &Core) -> Standing {
    let (phase, activity, reason) = core.in_words_of_the_file();
    let stage = core.in_flight().map(|one| (one.stage, one.attempt));
    Standing { phase, activity, reason: reason.to_owned(), stage, claim: core.claim() }
}

impl Agent {
    /// Says where the agent stands: after each step, and at each beat.
    pub(super) fn inform(&mut self, is_beat: bool) {
        let activity = &self.activity;
        self.info.say(standing(&self.core), is_beat, || activity.get());
    }
}
