//! Applying a package of ten steps that do nothing, beside a shell script that runs the same files with chroot(8).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::figures::Figure;
use crate::package::{Package, ROOT};
use crate::peak;
use crate::step_output;

/// Pairs that take turns. Each is a hundredth of a second or so: many are cheap, and their minima find a quiet moment.
const PAIRS: usize = 31;
/// Steps of the package.
const STEPS: usize = 10;
/// Times what the script takes.
const MOST: f64 = 2.0;

/// Measures it, with its files in `folder`, which the caller removes.
///
/// # Errors
/// Where one of the two fails, as for everybody who may not chroot(2).
pub fn measure(agent: &Path, folder: &Path) -> Result<[Figure; 2]> {
    let package = Package::write(agent, &folder.join("package"), &vec!["exit 0".to_owned(); STEPS])?;
    let steps = package.steps();
    let lines: String = (0..STEPS)
        .map(|index| {
            format!("chroot {ROOT} '{}' || exit 1\n", steps.join(format!("step{index}.sh")).display())
        })
        .collect();
    let script = folder.join("by-hand.sh");
    std::fs::write(&script, lines).context("writing the script")?;
    let mut pairs = Vec::with_capacity(PAIRS);
    for pair in 0..PAIRS {
        // In a place of its own each: a folder in which files were removed is slower to sync.
        let own = seconds(&mut package.apply(&folder.join(format!("place{pair}")), true))?;
        pairs.push((own, seconds(Command::new("sh").arg(&script))?));
    }
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| own * 1000.0).collect();
    let pairs: Vec<(f64, f64)> = pairs.iter().map(|(own, limit)| (own * 1000.0, limit * 1000.0)).collect();
    let name = "apply of ten steps that do nothing";
    // Apart from what is timed, which looking at it would slow down.
    let found = folder.join("peak");
    seconds(&mut package.apply_watched(&folder.join("looked-at"), true, &found)?)?;
    let peak = peak::read(&found)?;
    Ok([
        Figure::new(name, "ms", &own)
            .beside_by_minima("a script with chroot(8)", &pairs)
            .at_most_of_limit(MOST),
        step_output::peak_figure(name, peak),
    ])
}

fn seconds(command: &mut Command) -> Result<f64> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().context("starting what is measured")?;
    let seconds = began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?} ended with {}: {said}", command.get_program(), output.status);
    Ok(seconds)
}
