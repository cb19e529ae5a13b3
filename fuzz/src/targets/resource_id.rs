//! `SKYHOOK_RESOURCE_ID`, whose parts name folders on the host.

use groundcrew_agent::package::resource_id::ResourceId;

/// Tries one input.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ResourceId::parse(text) {
        Ok(id) => {
            assert_eq!(id.text(), text);
            let ending = format!("_{}_{}", id.package(), id.version());
            let instance = text.strip_suffix(&ending).expect("its parts make it up");
            for part in [instance, id.package(), id.version()] {
                let names =
                    !part.is_empty() && part != "." && part != ".." && !part.contains(['/', '_', '\0']);
                assert!(names, "{part:?} names no folder");
            }
        }
        Err(refused) => assert!(!refused.to_string().contains('\n'), "more than one line: {refused}"),
    }
}
