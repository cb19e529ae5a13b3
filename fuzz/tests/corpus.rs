//! Every committed input is tried with every test run.

use groundcrew_fuzz::{TARGETS, corpus};

#[test]
fn every_committed_input_keeps_the_rules() {
    for target in TARGETS {
        let folder = corpus(&target);
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut tried = 0;
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            // Shown where the input breaks a rule.
            println!("{}: {}", target.name, path.display());
            (target.check)(&bytes);
            tried += 1;
        }
        assert!(tried >= 5, "{} holds {tried} inputs", folder.display());
    }
}
