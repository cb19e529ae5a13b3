//! A run for tests.

use groundcrew_protocol::operator::{RunView, WaitView};
use groundcrew_protocol::time::WallMs;
use serde_json::{Value, json};

/// The moment of the tests: 2023-11-14 22:13:20 UTC.
pub(crate) const NOW: WallMs = WallMs(1_700_000_000_000);

/// A run at CPUStress whose agent speaks, with some fields replaced.
pub(crate) fn view(changes: Value) -> RunView {
    let ago = |seconds: i64| NOW.0 - seconds * 1000;
    let mut view = json!({
        "run": "r-7f3k9q2m", "node": "rack1-node7", "profile": "burn-in", "state": "CPUStress",
        "stage": "CPUStress", "attempt": 1, "verdict": "pass", "reason": "",
        "wait": {"for": "the result of the attempt in flight", "since": ago(30), "until": ago(-960),
            "then": "the run is held (by then the limits are over)"},
        "agent": "running", "created": ago(90), "ended": null,
        "stages": [
            {"stage": "Inventory", "attempts": 1, "verdict": "pass", "overridden": null, "deadline_ms": 60_000,
                "began": ago(40), "ended": ago(35)},
            {"stage": "CPUStress", "attempts": 1, "verdict": null, "overridden": null, "deadline_ms": 120_000,
                "began": ago(30), "ended": null},
            {"stage": "Reporting", "attempts": 0, "verdict": null, "overridden": null, "deadline_ms": 60_000,
                "began": null, "ended": null}],
        "claim": 1, "ip": "10.0.0.7", "last_heard": ago(4), "activity": "stress-ng on 2 CPUs", "skew_ms": null,
        "gaps": [], "directives": []
    });
    for (key, value) in changes.as_object().expect("the changes are an object") {
        view[key] = value.clone();
    }
    serde_json::from_value(view).expect("the sample is a run")
}

/// A wait of 30 seconds so far, and one hour to come.
pub(crate) fn wait(what: &str, then: &str) -> Value {
    let wait = WaitView {
        r#for: what.to_owned(),
        since: WallMs(NOW.0 - 30_000),
        until: WallMs(NOW.0 + 3_600_000),
        then: then.to_owned(),
    };
    serde_json::to_value(wait).expect("a wait is JSON")
}
