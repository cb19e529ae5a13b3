//! Puts the report of a run together from what is stored. Judges nothing: verdicts were given when results came.

use groundcrew_protocol::check::Judged;
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::report::{LOG_TAIL_LINES, Report, SERIES_MAX, StageReport, run_verdict};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::ResultRequest;

use crate::run::state::{Run, StageRecord};
use crate::store::{ResultKind, Store, StoreError, StoredResult, Wanted};

/// The report of a run as it stands. `agent_speaks`: an agent is there that may still close its streams of log.
///
/// # Errors
/// Those of the store.
pub async fn assemble(
    store: &Store,
    run: &Run,
    agent_speaks: bool,
    made: WallMs,
) -> Result<Report, StoreError> {
    let results = store.results(&run.id).await?;
    // What a cancelled stage still had to say came after the run's end. It is evidence, and nothing else is there of it.
    let late = match run.state() {
        State::Cancelled => store.evidence(&run.id).await?.0,
        State::At(_) | State::FailedHolding | State::Completed => Vec::new(),
    };
    let mut stages = Vec::with_capacity(run.stages.len());
    for record in &run.stages {
        let name = &record.spec.name;
        let is_last_word = |late: &&StoredResult| {
            late.kind == ResultKind::Late && late.stage == *name && late.attempt == record.attempts_made
        };
        let last_word = late.iter().rfind(is_last_word);
        let mut stage = stage_report(record, last_word.or_else(|| standing(&results, name)));
        if !name.is_orchestrators() && record.attempts_made > Attempt(0) {
            stage.log_tail = store.logs().tail(&run.id, Some(name), LOG_TAIL_LINES).await?.lines;
        }
        stages.push(stage);
    }
    let mut inventories = results.iter().rev().filter_map(|result| result.request.as_ref());
    let inventory = inventories.find_map(|request| request.inventory.clone());
    let mut gaps = store.logs().gaps(&run.id, agent_speaks).await?;
    let (sensors, left_out) = store.sensors(&run.id, Wanted::default()).await?;
    if left_out > 0 {
        gaps.push(format!("{left_out} readings of sensors beyond the first {SERIES_MAX} are not shown"));
    }
    Ok(Report {
        run: Some(run.id.clone()),
        node: Some(run.node.clone()),
        profile: run.profile.name.clone(),
        state: run.state(),
        verdict: run_verdict(stages.iter().map(StageReport::counted)),
        reason: run.reason(),
        began: run.created,
        ended: run.ended(),
        made,
        version: format!("groundcrewd {}", env!("CARGO_PKG_VERSION")),
        stages,
        inventory,
        sensors,
        gaps,
    })
}

/// The result of the latest attempt of a stage that has one.
fn standing<'a>(results: &'a [StoredResult], stage: &Stage) -> Option<&'a StoredResult> {
    results.iter().filter(|result| result.stage == *stage).max_by_key(|result| (result.attempt, result.id))
}

fn stage_report(record: &StageRecord, result: Option<&StoredResult>) -> StageReport {
    let request = result.and_then(|result| result.request.as_deref());
    let attempt = result.map_or(record.attempts_made, |result| result.attempt);
    let known = record.attempts.iter().find(|known| known.number == attempt);
    let (began, ended) = request
        .and_then(|request| request.own_times())
        .map(|(began, ended)| (Some(began), Some(ended)))
        .unwrap_or_else(|| (known.map(|known| known.began), known.and_then(|known| known.ended)));
    let (summary, message) = words(request, result.and_then(|result| result.judged.as_ref()));
    StageReport {
        stage: record.spec.name.clone(),
        attempt,
        attempts: record.attempts_made.0,
        verdict: record.verdict,
        overridden: record.overridden.as_ref().map(|overridden| overridden.reason.clone()),
        summary,
        message,
        began,
        ended,
        checks: result
            .and_then(|result| result.judged.clone())
            .map(|judged| judged.checks)
            .unwrap_or_default(),
        log_tail: Vec::new(),
    }
}

/// What a stage says: the agent's own words, and the orchestrator's where the agent has none: in the orchestrator's own
/// stages, and where it knows a reason that the agent does not.
fn words(request: Option<&ResultRequest>, judged: Option<&Judged>) -> (String, String) {
    let (summary, message) =
        request.map(|request| (request.summary.clone(), request.message.clone())).unwrap_or_default();
    let Some(judged) = judged.filter(|judged| !judged.checks.is_empty()) else {
        return (summary, message);
    };
    let or = |said: String, other: String| if said.is_empty() { other } else { said };
    (
        or(summary, groundcrew_protocol::report::summary(judged.verdict, &judged.checks)),
        or(message, groundcrew_protocol::report::message(&judged.checks)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundcrew_protocol::check::{Check, Limit, Observation, Verdict};

    #[test]
    fn a_stage_without_words_of_an_agents_has_those_of_its_checks() {
        let missing = Observation::Missing { what: "disk S1".to_owned() };
        let checks = vec![Check::of("disk", Some("S1"), missing, Limit::default())];
        let judged = Judged { verdict: Verdict::Fail, checks };
        let own = ("fail: 1 fail".to_owned(), "disk S1 is missing".to_owned());
        assert_eq!(words(None, Some(&judged)), own);
        let said =
            serde_json::json!({"stage": "SMART", "passed": true, "summary": "pass: 4 pass", "message": ""});
        let request: ResultRequest = serde_json::from_value(said).unwrap();
        assert_eq!(words(Some(&request), Some(&judged)), ("pass: 4 pass".to_owned(), own.1));
        assert_eq!(words(None, None), Default::default());
    }

    #[test]
    fn a_stage_lasts_from_what_the_agent_says_and_not_until_its_result_came() {
        let own_times = |began: i64, ended: i64| {
            let request =
                serde_json::json!({"stage": "SMART", "passed": true, "began": began, "ended": ended});
            serde_json::from_value::<ResultRequest>(request).unwrap().own_times()
        };
        assert_eq!(own_times(1_000, 41_000), Some((WallMs(1_000), WallMs(41_000))));
        assert_eq!(own_times(0, 0), None, "protocol 1 says nothing");
        assert_eq!(own_times(2_000, 1_000), None, "a clock that was set back");
    }
}
