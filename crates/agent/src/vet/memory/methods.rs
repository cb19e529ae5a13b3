//! What is known of stress-ng's methods for memory: how much of what they count proves that something was compared, and how
//! much a worker goes through in a second. Read from stress-vm.c of stress-ng 0.15.06.

use groundcrew_protocol::profile::MEMORY_METHODS;

/// A bogo operation of the stressor stands for this many that its methods count.
const COUNTED_PER_OPERATION: f64 = 4096.0;
/// Of a method that goes through the memory a few times: what a worker does at least, on a machine all of whose CPUs do the same.
const BYTES_PER_SECOND: u64 = 256 << 20;
/// Of one that goes through it dozens of times, or byte by byte from one end to the other.
const SLOW_BYTES_PER_SECOND: u64 = 4 << 20;
const SLOW: [&str; 4] = ["modulo-x", "prime-incdec", "walk-0a", "walk-1a"];

/// A method that compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// Its name.
    pub name: &'static str,
    /// Bytes that one count stands for; `None` where it counts without regard to the bytes.
    bytes_per_count: Option<u32>,
}

impl Method {
    /// By its name; empty is all of them in turn.
    ///
    /// # Errors
    /// Where it is none that compares what it reads: its success would say nothing.
    pub fn of(name: &str) -> Result<Method, String> {
        let name = if name.is_empty() { "all" } else { name };
        let known = MEMORY_METHODS.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| {
            format!(
                "the method {name} of stress-ng is none that compares what it reads, so it would find no wrong bit: expected one of {}",
                MEMORY_METHODS.join(", ")
            )
        })?;
        let bytes_per_count = match name {
            "rowhammer" => None,
            "rand-sum" => Some(512),
            "walk-0a" | "walk-1a" => Some(256),
            "lfsr32" => Some(128),
            // All begin with cache-lines, which counts 64 bytes at a time, and most of the others count more finely.
            "all" | "cache-lines" | "cache-stripe" | "checkerboard" | "galpat-0" | "galpat-1"
            | "wrrd128nt" => Some(64),
            "swap" => Some(32),
            "rand-set" | "fwdrev" | "prime-0" | "prime-1" | "prime-gray-0" | "prime-gray-1" => Some(8),
            "inc-nybble" | "ror" | "zero-one" => Some(4),
            "move-inv" => Some(2),
            // The others count each byte.
            _ => Some(1),
        };
        Ok(Method { name, bytes_per_count })
    }

    /// The most that so many workers can go through in this time.
    pub fn bytes_in(self, workers: u32, duration_ms: u64) -> u64 {
        let rate = if SLOW.contains(&self.name) { SLOW_BYTES_PER_SECOND } else { BYTES_PER_SECOND };
        let of_worker = rate.saturating_mul(duration_ms) / 1000;
        of_worker.saturating_mul(u64::from(workers))
    }

    /// True where this many operations prove that this much memory was filled and compared: a method counts while it fills, and
    /// what is beyond one filling was counted after a comparison.
    pub fn compared(self, operations: f64, bytes: u64) -> bool {
        match self.bytes_per_count {
            Some(per_count) => {
                operations * COUNTED_PER_OPERATION * f64::from(per_count) >= 2.0 * bytes as f64
            }
            None => operations > 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_that_compare_are_known() {
        assert_eq!(Method::of("").unwrap().name, "all");
        for name in MEMORY_METHODS {
            assert_eq!(Method::of(name).unwrap().name, name);
        }
        for name in ["write64", "read64", "read64nt", "write64nt", "write64ds", "write1024v", "later"] {
            let why = Method::of(name).unwrap_err();
            assert!(why.contains(name) && why.contains("compares"), "{why}");
        }
    }

    /// 1 GiB is 16 Mi counts of 64 bytes, or 4096 operations.
    #[test]
    fn one_filling_proves_no_comparison() {
        let all = Method::of("all").unwrap();
        for (operations, compared) in [(0.0, false), (4096.0, false), (8191.0, false), (8192.0, true)] {
            assert_eq!(all.compared(operations, 1 << 30), compared, "{operations}");
        }
        let each_byte = Method::of("gray").unwrap();
        assert!(!each_byte.compared(8192.0, 1 << 30) && each_byte.compared(524_288.0, 1 << 30));
        let hammer = Method::of("rowhammer").unwrap();
        assert!(hammer.compared(1.0, 1 << 40) && !hammer.compared(0.0, 1));
    }

    #[test]
    fn more_time_and_more_workers_go_through_more() {
        let all = Method::of("all").unwrap();
        assert_eq!(all.bytes_in(2, 1_000), 512 << 20);
        assert_eq!(Method::of("modulo-x").unwrap().bytes_in(2, 60_000), 480 << 20);
        assert_eq!(all.bytes_in(u32::MAX, u64::MAX), u64::MAX);
    }
}
