//! What the control loop makes of a call that failed.

use groundcrew_client::Error;

use super::core::Failure;

/// What the control loop makes of a failed call.
pub fn failure_of(error: &Error) -> Failure {
    let text = error.chain();
    match (error.status(), error.code()) {
        (Some(401), _) => Failure::Unauthorized(text),
        (Some(403 | 404), _) => Failure::Slow(text),
        (Some(410), _) => Failure::Gone(text),
        (Some(409), "old_claim") => Failure::OldClaim(text),
        (Some(409), "claimed_elsewhere") => Failure::Elsewhere(text),
        (Some(409), "unknown_claim" | "not_claimed") => Failure::UnknownClaim(text),
        (Some(400 | 409 | 413 | 422), _) => Failure::Refused(text),
        (Some(_), _) => Failure::Soon(text),
        (None, _) if matches!(error, Error::WrongPin { .. }) => Failure::Slow(text),
        (None, _) if matches!(error, Error::Unsendable { .. }) => Failure::Refused(text),
        (None, _) => Failure::Soon(text),
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::wire::ErrorBody;

    use super::*;

    fn refusal(code: u16, word: &str) -> Failure {
        let body = ErrorBody { error: "no".into(), code: word.into(), state: None, claim: None };
        failure_of(&Error::Status { call: "POST x".into(), code, body: Box::new(body) })
    }

    #[test]
    fn refusals_are_told_apart_by_status_and_word() {
        assert!(matches!(refusal(401, "token"), Failure::Unauthorized(_)));
        assert!(matches!(refusal(404, ""), Failure::Slow(_)));
        assert!(matches!(refusal(410, "gone"), Failure::Gone(_)));
        assert!(matches!(refusal(409, "old_claim"), Failure::OldClaim(_)));
        assert!(matches!(refusal(409, "claimed_elsewhere"), Failure::Elsewhere(_)));
        assert!(matches!(refusal(409, "unknown_claim"), Failure::UnknownClaim(_)));
        assert!(matches!(refusal(422, "bad"), Failure::Refused(_)));
        assert!(matches!(refusal(413, "large"), Failure::Refused(_)));
        for code in [429, 500, 502, 503, 507] {
            assert!(matches!(refusal(code, ""), Failure::Soon(_)), "{code}");
        }
    }
}
