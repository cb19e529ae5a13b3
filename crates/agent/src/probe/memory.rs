//! Memory, from /proc/meminfo. Modules are SMBIOS's to name.

use super::{Root, Unreads};

const PART: &str = "memory";
/// Real ones have some 2 KiB.
const MEMINFO_BYTES_MAX: u64 = 64 * 1024;

/// Bytes that the kernel manages.
pub fn total_bytes(root: &Root, unreads: &mut Unreads) -> Option<u64> {
    let text = match root.text("/proc/meminfo", MEMINFO_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            unreads.note(PART, "/proc/meminfo", error);
            return None;
        }
    };
    let total = parse_total(&text);
    if total.is_none() {
        unreads.note(PART, "/proc/meminfo", "it has no line MemTotal");
    }
    total
}

/// Bytes that programs can have without making the kernel swap.
///
/// # Errors
/// Where the kernel does not say (`MemAvailable`).
pub fn available_bytes(root: &Root) -> Result<u64, String> {
    let text =
        root.text("/proc/meminfo", MEMINFO_BYTES_MAX).map_err(|error| format!("/proc/meminfo: {error}"))?;
    parse(&text, "MemAvailable:").ok_or_else(|| "/proc/meminfo: it has no line MemAvailable".to_owned())
}

fn parse_total(text: &str) -> Option<u64> {
    parse(text, "MemTotal:").filter(|bytes| *bytes > 0)
}

fn parse(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_total_is_found_or_missed() {
        assert_eq!(parse_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_777_216));
        for bad in ["", "MemFree: 1 kB", "MemTotal: x kB", "MemTotal: 5", "MemTotal: 18446744073709551615 kB"]
        {
            assert_eq!(parse_total(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(MemTotal:)?.{0,80}") {
            let _ = parse_total(&text);
        }
    }
}
