//! A profile in TOML: what is taken is written out again as the same profile, what is refused is named.

use groundcrew_protocol::profile::Profile;

/// Tries one input.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Profile::parse(text) {
        Ok(profile) => {
            let written = profile.to_toml();
            match Profile::parse(&written) {
                Ok(again) => assert_eq!(profile, again, "written as\n{written}"),
                Err(refused) => panic!("what was taken is refused once written: {refused}\n{written}"),
            }
        }
        Err(refused) => assert!(!refused.to_string().is_empty()),
    }
}
