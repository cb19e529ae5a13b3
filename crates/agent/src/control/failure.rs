//! What the control loop makes of a call that failed.

use groundcrew_client::Error;

use super::core::Failure;

/// What the control loop makes of a failed call.
pub fn failure_of(error: &Error) -> Failure {
    // Nobody needs to mend what time does.
    if let (Some(401), Some(after_s)) = (error.status(), error.retry_after_s()) {
        return Failure::NotYet { text: error.chain(), after_s };
    }
    let text = match hint(error) {
        Some(hint) => format!("{}; {hint}", error.chain()),
        None => error.chain(),
    };
    match (error.status(), error.code()) {
        (Some(401), _) => Failure::Unauthorized(text),
        (Some(403 | 404), _) => Failure::Slow(text),
        (Some(410), _) => Failure::Gone(text),
        (Some(409), "old_claim") => Failure::OldClaim(text),
        (Some(409), "claimed_elsewhere") => Failure::Elsewhere(text),
        (Some(409), "unknown_claim" | "not_claimed") => Failure::UnknownClaim(text),
        (Some(400 | 413 | 422), _) => Failure::Refused(text),
        // An order that does not fit where the run stands. Another conflict is no refusal for good (rule 2).
        (Some(409), "order") => Failure::Refused(text),
        (Some(_), _) => Failure::Soon(text),
        (None, _) if matches!(error, Error::WrongPin { .. }) => Failure::Slow(text),
        (None, _) if matches!(error, Error::Unsendable { .. }) => Failure::Refused(text),
        (None, _) => Failure::Soon(text),
    }
}

/// What must change before a call that only an operator can mend is answered.
fn hint(error: &Error) -> Option<&'static str> {
    match error.status() {
        // Their messages say what to do: which token, or which machine was meant.
        Some(401) if error.code() == "token" => None,
        Some(403) if error.code() == "wrong_machine" => None,
        Some(401) => {
            Some("what answered is no orchestrator of ours, or a proxy stands between: check the URL")
        }
        Some(403) => {
            Some("this token is another run's, or a proxy stands between: check the token and the URL")
        }
        Some(404) => Some("the orchestrator knows no such run or path: check the run and the URL"),
        Some(410) => Some("the run was deleted: make a new run for this node"),
        None if matches!(error, Error::WrongPin { .. }) => Some(
            "nothing was sent to it. Check the URL; where the certificate is the right one (`groundcrewd fingerprint` prints \
             it), start the agent again with that as --fpr, GROUNDCREW_FPR or groundcrew.fpr=",
        ),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::wire::ErrorBody;

    use super::*;

    fn refusal(code: u16, word: &str) -> Failure {
        refusal_until(code, word, None)
    }

    fn refusal_until(code: u16, word: &str, retry_after_s: Option<u64>) -> Failure {
        let body =
            ErrorBody { error: "no".into(), code: word.into(), state: None, claim: None, retry_after_s };
        failure_of(&Error::Status { call: "POST x".into(), code, body: Box::new(body) })
    }

    #[test]
    fn refusals_are_told_apart_by_status_and_word() {
        assert!(matches!(refusal(401, "token"), Failure::Unauthorized(_)));
        assert!(matches!(refusal_until(401, "token", Some(7)), Failure::NotYet { after_s: 7, .. }));
        assert!(matches!(refusal_until(429, "too_often", Some(7)), Failure::Soon(_)));
        assert!(matches!(refusal(404, ""), Failure::Slow(_)));
        assert!(matches!(refusal(410, "gone"), Failure::Gone(_)));
        assert!(matches!(refusal(409, "old_claim"), Failure::OldClaim(_)));
        assert!(matches!(refusal(409, "claimed_elsewhere"), Failure::Elsewhere(_)));
        assert!(matches!(refusal(409, "unknown_claim"), Failure::UnknownClaim(_)));
        assert!(matches!(refusal(422, "bad"), Failure::Refused(_)));
        assert!(matches!(refusal(413, "large"), Failure::Refused(_)));
        assert!(matches!(refusal(409, "order"), Failure::Refused(_)));
        assert!(matches!(refusal(409, "busy"), Failure::Soon(_)));
        for (code, word) in [(401, "token"), (403, "wrong_machine")] {
            assert!(!refusal(code, word).text().contains("; "), "{word}: its own message says what to do");
        }
        for code in [401, 403, 404, 410] {
            assert!(refusal(code, "").text().contains("; "), "{code} says what must change");
        }
        for code in [429, 500, 502, 503, 507] {
            assert!(matches!(refusal(code, ""), Failure::Soon(_)), "{code}");
        }
    }
}
