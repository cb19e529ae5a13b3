//! NVLink, by `nvidia-smi nvlink -s` (the speed of each link, or that it is inactive) and `-e` (what each has counted since its
//! counters were set anew, of which what it grew by within the stage counts). Reading is pure.
//!
//! After nvidia-smi(1) of driver 535 and its print on machines with H100 (docs.nvidia.com, "NVLink" in the guides to HGX and
//! DGX). A link that is inactive may have nothing at its other end: the profile says how many must be active, and GPUs of one
//! machine that differ warn.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::names;

use super::{Artifacts, Ask, Finding, Named};

/// What counts as an error that was corrected, by a part of its name in lower case, which generations write each in their own way.
/// Others, as histograms of forward error correction, count what is usual.
const CORRECTED: [&str; 6] = ["replay", "crc", "ecc", "malformed", "overrun", "integrity"];
const RECOVERY: &str = "recovery";
/// What is printed of a GPU whose links are all down.
const ALL_INACTIVE: &str = "all links are inactive";

/// What nvidia-smi says of all links at one time.
pub(super) struct Said {
    speeds: Result<String, String>,
    counts: Result<String, String>,
}

impl Said {
    /// Asks for both.
    pub fn of(ask: &Ask<'_>, artifacts: &mut Artifacts) -> Said {
        let mut said = |option: &str| {
            let stdout = ask("nvidia-smi", &["nvlink", option])?;
            artifacts.push((format!("nvidia-smi-nvlink{option}.txt"), stdout.clone()));
            String::from_utf8(stdout).map_err(|_| "nvidia-smi printed no text".to_owned())
        };
        Said { speeds: said("-s"), counts: said("-e") }
    }

    /// Which links of each GPU are active.
    pub fn state(&self, gpus: &[Named<'_>], wanted: Option<u32>) -> Vec<Finding> {
        let all: Vec<Result<Links, String>> =
            gpus.iter().map(|gpu| of_gpu(&self.speeds, gpu, speed)).collect();
        let most = all.iter().flatten().map(active).max().unwrap_or(0);
        let fastest = all.iter().flatten().flatten().filter_map(|(_, speed)| *speed).fold(0.0, f64::max);
        let state = |(gpu, links): (&Named<'_>, Result<Links, String>)| {
            let observed = match links {
                Ok(links) => state(&links, wanted, most, fastest),
                Err(why) => Observation::Unreadable { why },
            };
            Finding::of(names::NVLINKS, Some(&gpu.component), observed, "nvidia-smi nvlink -s")
        };
        gpus.iter().zip(all).map(state).collect()
    }

    /// What the active links of each GPU have counted since an earlier answer: what they had counted before says nothing of now.
    pub fn grown_since(&self, before: &Said, gpus: &[Named<'_>]) -> Vec<Finding> {
        let of = |gpu: &Named<'_>, name, kinds: &[&str]| {
            let counted = |said: &Said| {
                of_gpu(&said.counts, gpu, |line| count(line, kinds)).and_then(|counts| sum(&counts))
            };
            let is_idle = of_gpu(&self.speeds, gpu, speed).is_ok_and(|links| active(&links) == 0);
            let mut evidence = "nvidia-smi nvlink -e".to_owned();
            let observed = match (is_idle, counted(before), counted(self)) {
                (true, _, _) => Observation::Absent { why: "no link of its NVLink is active".to_owned() },
                (false, Err(why), _) | (false, Ok(_), Err(why)) => Observation::Unreadable { why },
                (false, Ok(before), Ok(after)) if after < before => Observation::Unreadable {
                    why: format!("it went back from {before} to {after} within the stage"),
                },
                (false, Ok(before), Ok(after)) => {
                    evidence.push_str(&format!(": {before} before, {after} after"));
                    Observation::measured(after - before, "errors")
                }
            };
            Finding::of(name, Some(&gpu.component), observed, &evidence)
        };
        let of_gpu =
            |gpu| [of(gpu, names::NVLINK_ERRORS, &CORRECTED), of(gpu, names::NVLINK_RECOVERIES, &[RECOVERY])];
        gpus.iter().flat_map(of_gpu).collect()
    }
}

/// What each link says, in the order in which they are printed; `None`: inactive, or not of this kind.
type Links = Vec<(String, Option<f64>)>;

fn active(links: &Links) -> usize {
    links.iter().filter(|(_, speed)| speed.is_some()).count()
}

/// The lines of a GPU's links: `GPU 0: NAME (UUID: …)`, and beneath it `Link 0: …`.
fn of_gpu(
    said: &Result<String, String>,
    gpu: &Named<'_>,
    read: impl Fn(&str) -> Result<Option<f64>, String>,
) -> Result<Links, String> {
    let text = said.as_ref().map_err(Clone::clone)?;
    let index = gpu.index.as_deref().ok_or_else(|| "the driver does not number this GPU".to_owned())?;
    let head = |line: &str| Some(line.strip_prefix("GPU ")?.split_once(':')?.0.trim().to_owned());
    let mut lines = text.lines().skip_while(|line| head(line).as_deref() != Some(index));
    // Of a machine without NVLink it says nothing at all.
    if lines.next().is_none() && !text.trim().is_empty() {
        return Err(format!("nvidia-smi nvlink says nothing of GPU {index}"));
    }
    let lines = lines.take_while(|line| head(line).is_none()).map(str::trim);
    let mut links = Links::new();
    for line in lines.filter(|line| !line.is_empty() && !line.to_lowercase().contains(ALL_INACTIVE)) {
        let link = line.strip_prefix("Link ").and_then(|rest| rest.split_once(": "));
        let (number, rest) = link.ok_or_else(|| format!("nvidia-smi nvlink printed {line:?}"))?;
        links.push((number.to_owned(), read(rest.trim())?));
    }
    Ok(links)
}

fn speed(text: &str) -> Result<Option<f64>, String> {
    let number = text.strip_suffix(" GB/s").and_then(|number| number.parse::<f64>().ok());
    match number.filter(|speed| speed.is_finite()) {
        Some(speed) => Ok((speed > 0.0).then_some(speed)),
        None if text == "<inactive>" => Ok(None),
        None => Err(format!("nvidia-smi nvlink says {text:?} of a link, expected GB/s or <inactive>")),
    }
}

/// A counter of one of these kinds.
fn count(text: &str, kinds: &[&str]) -> Result<Option<f64>, String> {
    let (name, value) = text.rsplit_once(": ").unwrap_or((text, ""));
    let lower = name.to_lowercase();
    if !kinds.iter().any(|kind| lower.contains(kind)) || value == "N/A" {
        return Ok(None);
    }
    let count = value.trim().parse::<u64>();
    count
        .map(|count| Some(count as f64))
        .map_err(|_| format!("nvidia-smi nvlink says {text:?}, expected a count"))
}

fn state(links: &Links, wanted: Option<u32>, most: usize, fastest: f64) -> Observation {
    let count = active(links);
    let slow = links.iter().find(|(_, speed)| speed.is_some_and(|speed| speed < fastest));
    match (wanted, slow) {
        (Some(wanted), _) if count < wanted as usize => Observation::measured(count as f64, "links"),
        (None, _) if most == 0 => {
            let why = "no link of NVLink is active, and nvlinks_min of the profile says how many must be";
            Observation::Absent { why: why.to_owned() }
        }
        (None, _) if count < most => {
            Observation::Unexpected { what: format!("{count} active links beside a GPU with {most}") }
        }
        (_, Some((number, Some(speed)))) => Observation::Unexpected {
            what: format!("{speed} GB/s of link {number} beside a link with {fastest} GB/s"),
        },
        (Some(_) | None, _) => Observation::measured(count as f64, "links"),
    }
}

/// All counters of all links. Nothing that is counted is no zero.
fn sum(counts: &Links) -> Result<f64, String> {
    let all: Vec<f64> = counts.iter().filter_map(|(_, count)| *count).collect();
    match all.is_empty() {
        true => Err("nvidia-smi nvlink counts no such errors of its active links".to_owned()),
        false => Ok(all.iter().sum()),
    }
}
