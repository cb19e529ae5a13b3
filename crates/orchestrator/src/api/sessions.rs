//! Sessions of browsers: who logged in with an operator's token reads for half a day under a random name.
//!
//! A cookie goes to every port of a host, so the operator's token is never in one: who gets hold of a session can read
//! until it ends, and change nothing. Sessions are in memory alone, hashed; a restart ends them all, and a token that is
//! revoked ends its own.

use std::collections::HashMap;
use std::sync::Mutex;

use groundcrew_protocol::ids::{Sha256Hex, hex};
use groundcrew_protocol::time::WallMs;

use super::auth::random;
use crate::live::digest::TokenDigest;

/// How long a session lasts.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// Sessions at a time; past them the one that would end first goes.
const SESSIONS_MAX: usize = 1_000;

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    open: Mutex<HashMap<Sha256Hex, Session>>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    /// The operator's token that it was begun with.
    token: TokenDigest,
    until: WallMs,
}

impl Sessions {
    /// Begins one for the holder of an operator's token; what it answers goes into the cookie.
    pub fn begin(&self, token: TokenDigest, now: WallMs) -> String {
        let name = hex(&random::<32>());
        let mut open = self.open.lock().expect("no holder of this lock panics");
        open.retain(|_, session| session.until > now);
        if open.len() >= SESSIONS_MAX
            && let Some(first) =
                open.iter().min_by_key(|(_, session)| session.until).map(|(name, _)| name.clone())
        {
            open.remove(&first);
        }
        open.insert(Sha256Hex::of(name.as_bytes()), Session { token, until: now.plus(SESSION_MS) });
        name
    }

    /// The operator's token that a session was begun with, until it ends.
    pub fn token_of(&self, name: &str, now: WallMs) -> Option<TokenDigest> {
        let open = self.open.lock().expect("no holder of this lock panics");
        let session = open.get(&Sha256Hex::of(name.as_bytes()))?;
        (session.until > now).then_some(session.token)
    }

    /// Ends one.
    pub fn end(&self, name: &str) {
        self.open.lock().expect("no holder of this lock panics").remove(&Sha256Hex::of(name.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_itself_by_a_logout_and_for_want_of_room() {
        let (sessions, token) = (Sessions::default(), TokenDigest::of("gco_1"));
        let begun = sessions.begin(token, WallMs(0));
        let end = WallMs(0).plus(SESSION_MS);
        assert!(sessions.token_of(&begun, WallMs(end.0 - 1)).is_some_and(|of| of.is(&token)));
        assert!(sessions.token_of(&begun, end).is_none() && sessions.token_of("gco_1", WallMs(1)).is_none());
        sessions.end(&begun);
        assert!(sessions.token_of(&begun, WallMs(1)).is_none());
        let first = sessions.begin(token, WallMs(1));
        let rest: Vec<String> = (0..SESSIONS_MAX).map(|_| sessions.begin(token, WallMs(2))).collect();
        assert!(sessions.token_of(&first, WallMs(3)).is_none());
        assert!(rest.iter().all(|name| sessions.token_of(name, WallMs(3)).is_some()));
    }
}
