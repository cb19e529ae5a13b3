//! Starts a stage: puts together what it is done with, of the claim's answer and of the agent's settings.

use std::sync::Arc;

use groundcrew_protocol::profile::{ExpectedDisk, PackageSettings, StageSpec};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ClaimAnswer, LogLevel};

use super::Agent;
use super::perform::Then;
use super::stage::{Running, leave, line_sink, progress_sink};
use crate::client::Orchestrator;
use crate::control::core::{Event, StartStage};
use crate::fetch::Store;
use crate::probe::Root;
use crate::process::{Cancel, Launcher};
use crate::vet::{Interrupts, Packages, StageContext};

/// What a claim's answer says for stages.
#[derive(Debug, Default)]
pub(super) struct FromClaim {
    expected_disks: Vec<ExpectedDisk>,
    non_destructive: bool,
    pub(super) operator_retries: u32,
    stored_packages: Vec<PackageSettings>,
}

impl FromClaim {
    /// Takes it out of the answer.
    pub(super) fn of(answer: &ClaimAnswer) -> FromClaim {
        FromClaim {
            expected_disks: answer.expected_disks.clone(),
            non_destructive: answer.non_destructive,
            operator_retries: answer.operator_retries,
            stored_packages: answer.stored_packages.clone(),
        }
    }

    /// A stage with the settings of its package, where the orchestrator stores that.
    fn settled(&self, spec: StageSpec) -> StageSpec {
        let Stage::Package { name, .. } = &spec.name else { return spec };
        let stored = self.stored_packages.iter().find(|package| package.name.as_str() == name);
        StageSpec { package: spec.package.or_else(|| stored.cloned()), ..spec }
    }
}

impl Agent {
    pub(super) fn start_stage(&mut self, start: StartStage) -> Then {
        let stage = start.stage.clone();
        self.say(LogLevel::Info, format!("stage {stage}: attempt {} starts", start.attempt));
        let Ok(cancel) = Cancel::new() else {
            return self.cannot_start("the process has no file descriptor left");
        };
        let spec = start.spec.unwrap_or_else(|| StageSpec::of(stage.clone()));
        let spec = self.claim_answer.settled(spec);
        let (leave, permit) = leave(self.events.clone());
        let context = StageContext {
            spec,
            plan: start.plan,
            expected_disks: self.claim_answer.expected_disks.clone(),
            non_destructive: self.claim_answer.non_destructive,
            override_flags: start.flags,
            packages: self.packages(),
            interrupts: Ok(Interrupts {
                instance: self.instance(),
                attempt: start.attempt,
                services: self.services(),
                leave: leave.clone(),
            }),
            wipes: match self.settings.allow_wipe {
                true => Ok(leave),
                false => Err(
                    "this agent's settings do not allow to write over disks (--allow-wipe, GROUNDCREW_ALLOW_WIPE=yes)",
                ),
            },
            root: Root::system(),
            launcher: Launcher::this_program(),
            children: self.children.clone(),
            work: self.home.clone(),
            search_path: search_path(),
            lines: line_sink(stage, self.log.clone(), self.console.clone(), self.io.health().clone()),
            progress: progress_sink(self.activity.clone()),
            cancel,
        };
        match Running::start(context, permit, self.events.clone()) {
            Ok(running) => {
                self.stage = Some(running);
                Then::Go
            }
            Err(error) => self.cannot_start(&error.to_string()),
        }
    }

    /// What a package's stage is done with, or why none is.
    fn packages(&self) -> Result<Packages, &'static str> {
        if !self.settings.allow_packages {
            return Err(
                "this agent's settings do not allow packages (--allow-packages, GROUNDCREW_ALLOW_PACKAGES=yes)",
            );
        }
        Ok(Packages { instance: self.instance(), store: Arc::new(self.store()) })
    }

    /// The packages that the orchestrator stores for this run, over a connection of their own, which delays no other.
    fn store(&self) -> Store {
        let token = Some(self.core.memory().token.clone());
        let (url, run) = (self.settings.url.clone(), self.settings.run.clone());
        let of_run = self.claim_answer.stored_packages.iter().filter_map(|package| package.sha256.clone());
        let orchestrator = Orchestrator::new(url, self.run_pins.clone(), token, run);
        Store::new(orchestrator, &self.home, of_run.collect())
    }

    /// What is done once is done once for this: the run, and each time that an operator has had a stage done again.
    fn instance(&self) -> String {
        format!("groundcrew-{}-{}", self.settings.run, self.claim_answer.operator_retries)
    }

    /// Why services may not be restarted, where they may not.
    fn services(&self) -> Result<(), &'static str> {
        if self.settings.allow_services {
            return Ok(());
        }
        Err(
            "this agent's settings do not allow to restart services (--allow-services, GROUNDCREW_ALLOW_SERVICES=yes)",
        )
    }

    /// A stage that has no thread ends at once, without an outcome: that is said, and the plan's checks stay open.
    fn cannot_start(&mut self, why: &str) -> Then {
        self.say(LogLevel::Error, format!("the stage cannot be started: {why}"));
        Then::Take(Event::StageEnded)
    }
}

/// Where tools are looked for: as the agent was started, or where a distribution keeps them.
pub(super) fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH")
        .unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into())
}
