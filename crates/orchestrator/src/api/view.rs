//! What operators see of a run: its document and what is known of its agent for the moment. No I/O.

use groundcrew_protocol::check::Verdict;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::{RunSummary, RunView, StageView, WaitView};
use groundcrew_protocol::report::{counted, run_verdict};

use crate::live::{Live, LiveRun};
use crate::run::decide;
use crate::run::state::{HoldKey, Run, StageRecord};

/// A run in a list.
pub fn summary(run: &Run, live: &Live, known: &LiveRun) -> RunSummary {
    RunSummary {
        run: run.id.clone(),
        node: run.node.clone(),
        profile: run.profile.name.clone(),
        state: run.state(),
        stage: Some(run.stage().spec.name.clone()),
        attempt: run.stage().attempts_made,
        verdict: verdict(run),
        reason: run.reason(),
        wait: run.wait.as_ref().map(|wait| WaitView {
            r#for: run.waits_for().unwrap_or_default(),
            since: wait.since,
            until: wait.until,
            then: wait.what.then().to_owned(),
        }),
        rebooting: run.rebooting(),
        agent: live.agent_word(known),
        created: run.created,
        ended: run.ended(),
    }
}

/// The verdict so far: over the stages that have one. What ended without one, a cancelled run's for example, was not
/// passed: after the end every stage counts.
fn verdict(run: &Run) -> Option<Verdict> {
    let stages = run.stages.iter().map(|stage| counted(stage.overridden.is_some(), stage.verdict));
    verdict_of(stages.collect(), run.ended().is_some())
}

fn verdict_of(stages: Vec<Option<Verdict>>, ended: bool) -> Option<Verdict> {
    if ended {
        return Some(run_verdict(stages));
    }
    let so_far: Vec<Verdict> = stages.into_iter().flatten().collect();
    (!so_far.is_empty()).then(|| Verdict::over(so_far))
}

/// A run in full.
pub fn view(run: &Run, live: &Live, known: &LiveRun, gaps: Vec<String>) -> RunView {
    let said = known.state().said.clone();
    RunView {
        summary: summary(run, live, known),
        stages: run.stages.iter().map(stage_view).collect(),
        claim: run.claim.as_ref().map(|claim| claim.number).unwrap_or_default(),
        ip: run.claim.as_ref().map(|claim| claim.ip.clone()).unwrap_or_default(),
        last_heard: live.last_heard(known),
        activity: said.as_ref().map(|said| said.activity.clone()).unwrap_or_default(),
        drain: said.as_ref().map(|said| said.drain.clone()).unwrap_or_default(),
        home_failed: said.as_ref().is_some_and(|said| said.home_failed),
        home: run.claim.as_ref().map(|claim| claim.home.clone()),
        host_keys: run.host_keys.clone(),
        hold_user: run.hold_user.clone(),
        hold_key: run.hold_key.as_ref().and_then(HoldKey::public).cloned(),
        hold_key_failed: run.hold_key.as_ref().and_then(HoldKey::failure).cloned(),
        wrong_machine: known.state().wrong_machine.clone(),
        machine_unproved: decide::unproved(run),
        skew_ms: said.and_then(|said| said.skew_ms).filter(|skew| skew.abs() > limits::SKEW_SHOWN_MS),
        gaps,
        directives: run.directives.iter().map(|directive| directive.command.to_string()).collect(),
    }
}

fn stage_view(record: &StageRecord) -> StageView {
    let latest = record.attempts.last();
    StageView {
        stage: record.spec.name.clone(),
        attempts: record.attempts_made.0,
        verdict: record.verdict,
        overridden: record.overridden.as_ref().map(|overridden| overridden.reason.clone()),
        deadline_ms: record.spec.deadline,
        began: latest.map(|attempt| attempt.began),
        ended: latest.and_then(|attempt| attempt.ended),
        took_ms: latest.and_then(|attempt| attempt.took_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ended_before_its_last_stage_is_no_pass() {
        let (pass, none) = (Some(Verdict::Pass), None);
        for (stages, ended, expected) in [
            (vec![], false, None),
            (vec![none, none], false, None),
            (vec![pass, none], false, Some(Verdict::Pass)),
            (vec![pass, none], true, Some(Verdict::Inconclusive)),
            (vec![none, none], true, Some(Verdict::Inconclusive)),
            (vec![pass, Some(Verdict::Warn)], true, Some(Verdict::Warn)),
            (vec![Some(Verdict::Fail), none], true, Some(Verdict::Fail)),
        ] {
            assert_eq!(verdict_of(stages.clone(), ended), expected, "{stages:?}, ended: {ended}");
        }
    }
}
