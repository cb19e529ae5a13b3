//! What was read at several times of a stage, as one finding for each check: the worst. Pure.

use groundcrew_protocol::check::{Limit, Observation, Verdict, judge};
use groundcrew_protocol::plan::names;

use super::finding::Finding;

/// What a GPU only ever counts up, while its driver stays loaded.
const COUNTS: [&str; 5] = [
    names::GPU_ECC_UNCORRECTED,
    names::GPU_ECC_CORRECTED,
    names::GPU_ECC_LIFETIME,
    names::GPU_RETIRED_PAGES,
    names::GPU_REMAPPED_ROWS,
];

/// Takes in what was read later. `limit` is that of a check by the plan.
pub(super) fn merge(seen: &mut Vec<Finding>, later: Vec<Finding>, limit: &dyn Fn(&str) -> Limit) {
    for finding in later {
        let known = seen.iter_mut().find(|of| of.name == finding.name && of.component == finding.component);
        match known {
            None => seen.push(finding),
            Some(was) => match contradiction(was, &finding) {
                Some(why) => was.observed = Observation::Unreadable { why },
                None if stands(was, &finding, &limit(finding.name)) => *was = finding,
                None => {}
            },
        }
    }
}

fn number(finding: &Finding) -> Option<f64> {
    match finding.observed {
        Observation::Measured { value, .. } => value,
        Observation::Found { .. }
        | Observation::Unreadable { .. }
        | Observation::Absent { .. }
        | Observation::Missing { .. }
        | Observation::Unexpected { .. } => None,
    }
}

/// Why two readings of a count say nothing: one that went back was set anew within the stage, and what it had counted is lost.
/// Errors of a GPU's life grow with those since its driver was loaded; where they alone grow, those were set anew.
fn contradiction(was: &Finding, is: &Finding) -> Option<String> {
    let (before, after) = (number(was)?, number(is)?);
    let counts = COUNTS.contains(&is.name);
    let grew = is.name == names::GPU_ECC_LIFETIME && after > before;
    let word = if counts && after < before { "went back" } else { "grew" };
    (counts && (grew || after < before))
        .then(|| format!("it {word} from {before} to {after} within the stage"))
}

/// Whether the later finding stands in place of the earlier one: where its verdict is worse, or as bad and its number further
/// off. Of a link's speed the best counts, since it goes slow whenever it rests.
fn stands(was: &Finding, is: &Finding, limit: &Limit) -> bool {
    let verdict = |of: &Finding| judge(&of.observed, limit, false).0;
    let (before, after) = (verdict(was), verdict(is));
    let best_counts = is.name == names::GPU_PCIE_SPEED;
    if before != after {
        return (Verdict::over([before, after]) == after) != best_counts;
    }
    match (number(was), number(is)) {
        (Some(before), Some(after))
            if [names::GPU_PCIE_WIDTH, names::NVLINKS, names::FAN_COUNT].contains(&is.name) =>
        {
            after <= before
        }
        (Some(before), Some(after)) => after >= before,
        (None, _) | (_, None) => true,
    }
}
