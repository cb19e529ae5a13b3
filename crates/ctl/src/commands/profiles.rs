//! The hardware that a profile expects, from a machine that is known to be good.

use anyhow::{Context, Result, bail};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::profile::Expected;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::spec_diff::expected_of;
use serde_json::{Value, json};

use super::Desk;
use crate::words;

/// Writes what the run's inventory says as the part `[expected]` of a profile.
pub(super) async fn from_run(desk: &Desk, run: &RunId, of_make: bool) -> Result<()> {
    let (_, report) = desk.api.report(run).await?;
    let toml = expected(&report, of_make)?;
    desk.done(&json!({"run": run, "toml": toml}), &toml)
}

/// The part of a profile.
///
/// # Errors
/// Where the machine is not known to be good, or the run has no inventory.
fn expected(report: &Report, of_make: bool) -> Result<String> {
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
    let left_out = match of_make {
        true => "serial numbers, WWNs and MAC addresses are left out",
        false => "others of its make meet what `--of-make` writes",
    };
    let mut text = format!(
        "# What the machine of run {run} is made of; {left_out}.\n# It goes into a profile that has a stage Inventory.\n"
    );
    for unread in &inventory.unread {
        text.push_str(&format!("# Not all was read: {}: {}\n", unread.part, words::clean(&unread.why)));
    }
    let expected = expected_of(inventory);
    let expected = if of_make { without_units(expected) } else { expected };
    text.push_str(&written(&expected)?);
    Ok(text)
}

/// The expectation as people write it: without what is not expected, and an exact count as one number.
fn written(expected: &Expected) -> Result<String> {
    let json = |expected: &Expected| serde_json::to_value(expected).context("writing the expectation");
    let said = without(json(expected)?, &json(&Expected::default())?).unwrap_or_else(|| json!({}));
    toml::to_string(&json!({"expected": said})).context("writing the expectation as TOML")
}

/// The value, where it says more than what is taken where nothing is written.
fn without(value: Value, default: &Value) -> Option<Value> {
    match value {
        value if value == *default || value.is_null() => None,
        Value::Object(map) => {
            if let (Some(least), Some(most), 2) = (map.get("at_least"), map.get("at_most"), map.len())
                && least == most
            {
                return Some(least.clone());
            }
            let keep = |(key, value): (String, Value)| {
                let default = default.get(&key).unwrap_or(&Value::Null);
                Some((key, without(value, default)?))
            };
            Some(Value::Object(map.into_iter().filter_map(keep).collect()))
        }
        Value::Array(list) => Some(list.into_iter().filter_map(|one| without(one, &Value::Null)).collect()),
        value => Some(value),
    }
}

/// What every machine of the make has: nothing that tells one unit of a part from another.
fn without_units(mut expected: Expected) -> Expected {
    for disk in &mut expected.disks {
        (disk.serial, disk.wwn) = (None, None);
    }
    for nic in &mut expected.nics {
        nic.mac = None;
    }
    // What says nothing any more is met by any, and the count of all is expected anyhow.
    expected.nics.retain(|nic| nic.driver.is_some() || nic.speed_mbps.is_some());
    expected
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::Verdict;
    use groundcrew_protocol::inventory::{Disk, Gpu, Inventory, Nic, Unread};
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
        let nic = |mac: &str, driver: Option<&str>| Nic {
            name: "eno1".to_owned(),
            mac: Some(mac.to_owned()),
            driver: driver.map(str::to_owned),
            ..Nic::default()
        };
        let disk = Disk { serial: Some("S1".to_owned()), size_bytes: 960_197_124_096, ..Disk::default() };
        let unread = Unread { part: "psus".to_owned(), why: "two\nlines".to_owned() };
        let inventory = Inventory {
            disks: vec![disk],
            nics: vec![nic("02:00:00:00:00:01", Some("ice")), nic("02:00:00:00:00:02", None)],
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
        let text = expected(&report, false).unwrap();
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
    fn another_machine_of_the_make_meets_what_names_no_unit() {
        let mut report = report(Verdict::Pass);
        let profile = |of_make: bool| {
            let text = expected(&report, of_make).unwrap();
            Profile::parse(&format!("name = \"p\"\n[[stage]]\nname = \"Inventory\"\n{text}")).unwrap()
        };
        let (this, make) = (profile(false), profile(true));
        let other = report.inventory.as_mut().unwrap();
        other.disks[0].serial = Some("S2".to_owned());
        other.nics[0].mac = Some("02:00:00:00:00:03".to_owned());
        let verdict = |profile: &Profile, inventory: &Inventory| {
            Verdict::over(spec_diff(&profile.expected, inventory).iter().map(|check| check.verdict))
        };
        assert_eq!(verdict(&this, other), Verdict::Fail);
        assert_eq!(verdict(&make, other), Verdict::Pass);
        other.nics.pop();
        assert_eq!(verdict(&make, other), Verdict::Fail, "each card counts");
    }

    #[test]
    fn of_a_machine_that_is_not_known_to_be_good_nothing_is_expected() {
        for verdict in [Verdict::Fail, Verdict::Inconclusive] {
            let why = expected(&report(verdict), false).unwrap_err().to_string();
            assert!(why.contains(verdict.as_str()), "{why}");
        }
        let empty = Report { inventory: None, ..report(Verdict::Pass) };
        assert!(expected(&empty, false).unwrap_err().to_string().contains("no stage Inventory"));
    }
}
