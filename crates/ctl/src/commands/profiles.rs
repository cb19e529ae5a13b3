//! The hardware that a profile expects, from a machine that is known to be good.

use anyhow::{Result, bail};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::spec_diff::expected_of;
use serde_json::json;

use super::Desk;
use crate::words;

/// Writes what the run's inventory says as the part `[expected]` of a profile.
pub(super) async fn from_run(desk: &Desk, run: &RunId) -> Result<()> {
    let (_, report) = desk.api.report(run).await?;
    let toml = expected(&report)?;
    desk.done(&json!({"run": run, "toml": toml}), &toml)
}

/// The part of a profile.
///
/// # Errors
/// Where the machine is not known to be good, or the run has no inventory.
fn expected(report: &Report) -> Result<String> {
    let run = report.run.as_ref().map(ToString::to_string).unwrap_or_default();
    if !report.verdict.goes_on() {
        bail!(
            "run {run} is {} and its verdict {}: only of a run that passed is its machine known to be good \
             (run an Inventory alone, or override the stage with a reason)",
            report.state,
            report.verdict
        );
    }
    let Some(inventory) = &report.inventory else {
        bail!("run {run} has no inventory: its profile has no stage Inventory");
    };
    let mut text = format!(
        "# What the machine of run {run} is made of. It goes into a profile that has a stage Inventory; take out what others like\n\
         # it do not share, as serials and MACs.\n"
    );
    for unread in &inventory.unread {
        text.push_str(&format!("# Not all was read: {}: {}\n", unread.part, words::clean(&unread.why)));
    }
    text.push_str(&expected_of(inventory).to_toml());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::Verdict;
    use groundcrew_protocol::inventory::{Disk, Gpu, Inventory, Unread};
    use groundcrew_protocol::profile::Profile;
    use groundcrew_protocol::spec_diff::spec_diff;

    use super::*;

    fn report(verdict: Verdict) -> Report {
        let gpu = |pci: &str| Gpu {
            pci: pci.to_owned(),
            vendor: "10de".to_owned(),
            device: "2330".to_owned(),
            class: "030200".to_owned(),
            driver: Some("nvidia".to_owned()),
        };
        let disk = Disk { serial: Some("S1".to_owned()), size_bytes: 960_197_124_096, ..Disk::default() };
        let unread = Unread { part: "psus".to_owned(), why: "two\nlines".to_owned() };
        let inventory = Inventory {
            disks: vec![disk],
            gpus: vec![gpu("0000:17:00.0"), gpu("0000:27:00.0")],
            unread: vec![unread],
            ..Inventory::default()
        };
        let report = json!({
            "run": "r-7f3k9q2m", "node": "rack1-node7", "profile": "good", "state": "Completed", "verdict": verdict,
            "began": 1, "ended": 2, "made": 3, "version": "1.0.0", "stages": [], "inventory": inventory, "sensors": [], "gaps": []
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn a_good_machine_is_what_its_profile_expects() {
        let report = report(Verdict::Warn);
        let text = expected(&report).unwrap();
        assert!(text.contains("# Not all was read: psus: two"), "{text}");
        let profile = format!("name = \"p\"\n[[stage]]\nname = \"Inventory\"\n{text}");
        let profile = Profile::parse(&profile).unwrap_or_else(|bad| panic!("{bad}\n{profile}"));
        assert_eq!((profile.expected.disks.len(), profile.expected.gpus[0].count.at_least), (1, 2));
        let mut inventory = report.inventory.unwrap();
        let verdict = |inventory: &Inventory| {
            Verdict::over(spec_diff(&profile.expected, inventory).iter().map(|check| check.verdict))
        };
        assert_eq!(verdict(&inventory), Verdict::Pass);
        inventory.gpus.pop();
        assert_eq!(verdict(&inventory), Verdict::Fail);
    }

    #[test]
    fn of_a_machine_that_is_not_known_to_be_good_nothing_is_expected() {
        for verdict in [Verdict::Fail, Verdict::Inconclusive] {
            let why = expected(&report(verdict)).unwrap_err().to_string();
            assert!(why.contains(verdict.as_str()), "{why}");
        }
        let empty = Report { inventory: None, ..report(Verdict::Pass) };
        assert!(expected(&empty).unwrap_err().to_string().contains("no stage Inventory"));
    }
}
