//! How checks are read from a writer that may be newer (rule 11): an unknown verdict makes a check inconclusive, an
//! unknown kind of observation is unreadable, each by name. Neither refuses the message that holds it.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Check, Limit, Observation, Verdict};

/// Kinds of observation that this version knows; one of them with other fields is a mistake.
const KINDS: [&str; 6] = ["measured", "found", "unreadable", "absent", "missing", "unexpected"];
/// Characters of an unknown word that are repeated.
const WORD_CHARS_MAX: usize = 40;

impl Verdict {
    fn of_word(word: &str) -> Option<Verdict> {
        let all = [Verdict::Pass, Verdict::Warn, Verdict::Fail, Verdict::Inconclusive, Verdict::Skipped];
        all.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Verdict::of_word(&word).unwrap_or(Verdict::Inconclusive))
    }
}

impl Serialize for Observation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The derived one: it stands at the type itself, so that reading can be written by hand below.
        Observation::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Observation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Observation, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Incoming {
            Known(#[serde(deserialize_with = "Observation::deserialize")] Observation),
            Other { kind: String },
        }
        match Incoming::deserialize(deserializer) {
            Ok(Incoming::Known(observation)) => Ok(observation),
            Ok(Incoming::Other { kind }) if KINDS.contains(&kind.as_str()) => {
                let said = format!("an observation of kind {kind:?}: a field is missing or not of its type");
                Err(D::Error::custom(said))
            }
            Ok(Incoming::Other { kind }) => {
                let why =
                    format!("it was observed as {:?}, which this version does not know", bounded(&kind));
                Ok(Observation::Unreadable { why })
            }
            Err(_) => Err(D::Error::custom("found no observation, expected an object with the field kind")),
        }
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Check, D::Error> {
        #[derive(Deserialize)]
        struct Incoming {
            name: String,
            #[serde(default)]
            component: Option<String>,
            observed: Observation,
            #[serde(default)]
            limit: Limit,
            verdict: String,
            #[serde(default)]
            reason: String,
            #[serde(default)]
            evidence: String,
        }
        let Incoming { name, component, observed, limit, verdict, reason, evidence } =
            Incoming::deserialize(deserializer)?;
        let known = Verdict::of_word(&verdict);
        // Kept in the observation, so that whoever judges the check again comes to the same end.
        let observed = match known {
            Some(_) => observed,
            None => Observation::Unreadable {
                why: format!(
                    "its verdict was {:?}, which this version does not know; observed: {}",
                    bounded(&verdict),
                    observed.describe()
                ),
            },
        };
        let verdict = known.unwrap_or(Verdict::Inconclusive);
        Ok(Check { name, component, observed, limit, verdict, reason, evidence })
    }
}

fn bounded(word: &str) -> String {
    word.chars().take(WORD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{PlannedCheck, judge_stage};

    fn check(verdict: &str, observed: serde_json::Value) -> serde_json::Result<Check> {
        serde_json::from_value(serde_json::json!({"name": "rate", "verdict": verdict, "observed": observed}))
    }

    fn judged(check: Check) -> (Verdict, String) {
        let limit = Limit::at_least(1.0);
        let plan = [PlannedCheck { name: "rate".into(), component: None, limit, required: false }];
        let judged = judge_stage(&plan, &[check]);
        (judged.verdict, judged.checks[0].reason.clone())
    }

    #[test]
    fn an_unknown_verdict_makes_a_check_inconclusive_by_name() {
        let measured = serde_json::json!({"kind": "measured", "value": 5, "unit": "ops/s"});
        assert_eq!(judged(check("pass", measured.clone()).unwrap()).0, Verdict::Pass);
        let check = check("degraded", measured).unwrap();
        assert_eq!(check.verdict, Verdict::Inconclusive);
        let (verdict, reason) = judged(check);
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(reason.contains("\"degraded\"") && reason.contains("5 ops/s"), "{reason}");
        // Elsewhere, as in a report of a newer orchestrator.
        assert_eq!(serde_json::from_str::<Verdict>("\"degraded\"").unwrap(), Verdict::Inconclusive);
        assert!(serde_json::from_str::<Verdict>("5").is_err());
    }

    #[test]
    fn an_unknown_observation_is_unreadable_by_name() {
        let ranged = serde_json::json!({"kind": "ranged", "low": 1, "high": [2, 3]});
        let (verdict, reason) = judged(check("pass", ranged).unwrap());
        assert_eq!(verdict, Verdict::Inconclusive);
        assert!(reason.contains("\"ranged\""), "{reason}");
        let long = serde_json::json!({"kind": "x".repeat(100_000)});
        assert!(check("pass", long).unwrap().observed.describe().len() < 200);
    }

    #[test]
    fn what_is_known_comes_back_as_it_was_and_a_mistake_is_still_one() {
        let why = || "w".to_owned();
        for observed in [
            Observation::measured(1.5, "°C"),
            Observation::measured(f64::NAN, "°C"),
            Observation::Found { text: why() },
            Observation::Unreadable { why: why() },
            Observation::Absent { why: why() },
            Observation::Missing { what: why() },
            Observation::Unexpected { what: why() },
        ] {
            let json = serde_json::to_value(&observed).unwrap();
            assert!(KINDS.contains(&json["kind"].as_str().unwrap()), "{json}");
            assert_eq!(serde_json::from_value::<Observation>(json.clone()).unwrap(), observed);
            let whole = Check::of("rate", Some("cpu"), observed, Limit::at_least(2.0)).with_evidence("e");
            assert_eq!(
                serde_json::from_value::<Check>(serde_json::to_value(&whole).unwrap()).unwrap(),
                whole
            );
            let error = check("pass", serde_json::json!({"kind": json["kind"]})).unwrap_err().to_string();
            assert!(error.contains("a field is missing"), "{error}");
        }
        let error = check("pass", serde_json::json!({"value": 1})).unwrap_err().to_string();
        assert!(error.contains("field kind"), "{error}");
    }
}
