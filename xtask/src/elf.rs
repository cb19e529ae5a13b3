//! As much of ELF as tells a static binary from a dynamic one: 64 bit, little endian, program headers and the dynamic
//! section (System V ABI, chapter 5).

use std::fmt;

use anyhow::{Context, Result, ensure};

/// Program header types.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// Tags of the dynamic section.
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
/// Sizes of a program header and of an entry of the dynamic section.
const PROGRAM_HEADER_BYTES: usize = 56;
const DYNAMIC_ENTRY_BYTES: usize = 16;

/// What a binary asks of the system to be loaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Linkage {
    /// It names a dynamic loader.
    pub interpreter: bool,
    /// How many shared libraries it names.
    pub libraries: usize,
}

impl Linkage {
    /// Needs nothing but the kernel. A static position-independent binary has a dynamic section too, for its own
    /// relocations, but that names no library.
    pub fn is_static(&self) -> bool {
        !self.interpreter && self.libraries == 0
    }
}

impl fmt::Display for Linkage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_static() {
            return f.write_str("static");
        }
        let loader = if self.interpreter { "a" } else { "no" };
        write!(f, "{loader} dynamic loader, {} shared libraries", self.libraries)
    }
}

/// Reads how a binary is linked.
///
/// # Errors
/// When the bytes are no 64-bit little-endian ELF file with program headers, or end too early.
pub fn linkage(bytes: &[u8]) -> Result<Linkage> {
    ensure!(bytes.starts_with(b"\x7fELF"), "it does not begin with the ELF magic");
    ensure!(bytes.get(4..6) == Some(&[2, 1]), "it is not 64 bit, little endian");
    let table = read_u64(bytes, 0x20)? as usize;
    let entry_bytes = read_u16(bytes, 0x36)? as usize;
    let count = read_u16(bytes, 0x38)? as usize;
    ensure!(entry_bytes == PROGRAM_HEADER_BYTES && count > 0, "it has no program headers");
    let mut linkage = Linkage { interpreter: false, libraries: 0 };
    for index in 0..count {
        let header =
            table.checked_add(index * entry_bytes).context("the program headers lie out of range")?;
        match read_u32(bytes, header)? {
            PT_INTERP => linkage.interpreter = true,
            PT_DYNAMIC => {
                let (start, size) =
                    (read_u64(bytes, header + 8)? as usize, read_u64(bytes, header + 32)? as usize);
                linkage.libraries += libraries(bytes, start, size)?;
            }
            _ => {}
        }
    }
    Ok(linkage)
}

fn libraries(bytes: &[u8], start: usize, size: usize) -> Result<usize> {
    let end = start.checked_add(size).context("the dynamic section lies out of range")?;
    let section = bytes.get(start..end).context("the dynamic section lies out of range")?;
    let mut count = 0;
    for entry in section.chunks_exact(DYNAMIC_ENTRY_BYTES) {
        match read_u64(entry, 0)? {
            DT_NULL => break,
            DT_NEEDED => count += 1,
            _ => {}
        }
    }
    Ok(count)
}

fn read_u16(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(read(bytes, at)?))
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(read(bytes, at)?))
}

fn read_u64(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(read(bytes, at)?))
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let field = at.checked_add(N).and_then(|end| bytes.get(at..end));
    let field = field.with_context(|| format!("it ends before byte {at} plus {N}"))?;
    Ok(field.try_into().expect("the slice has just this length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PT_LOAD: u32 = 1;

    /// A header, one program header for each of `kinds`, and a dynamic section with `tags`.
    fn sample(kinds: &[u32], tags: &[u64]) -> Vec<u8> {
        let dynamic_at = 64 + kinds.len() * PROGRAM_HEADER_BYTES;
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x20..0x28].copy_from_slice(&64u64.to_le_bytes());
        bytes[0x36..0x38].copy_from_slice(&(PROGRAM_HEADER_BYTES as u16).to_le_bytes());
        bytes[0x38..0x3a].copy_from_slice(&(kinds.len() as u16).to_le_bytes());
        for kind in kinds {
            let mut header = [0; PROGRAM_HEADER_BYTES];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&(dynamic_at as u64).to_le_bytes());
            header[32..40].copy_from_slice(&((tags.len() * DYNAMIC_ENTRY_BYTES) as u64).to_le_bytes());
            bytes.extend(header);
        }
        for tag in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([0; 8]);
        }
        bytes
    }

    #[test]
    fn static_with_and_without_a_dynamic_section() {
        assert!(linkage(&sample(&[PT_LOAD], &[])).unwrap().is_static());
        let relocations_only = linkage(&sample(&[PT_LOAD, PT_DYNAMIC], &[7, 8, DT_NULL, DT_NEEDED])).unwrap();
        assert!(relocations_only.is_static(), "{relocations_only}");
        assert_eq!(relocations_only.to_string(), "static");
    }

    #[test]
    fn a_loader_or_a_library_makes_it_dynamic() {
        let loader = linkage(&sample(&[PT_LOAD, PT_INTERP], &[])).unwrap();
        assert_eq!(loader, Linkage { interpreter: true, libraries: 0 });
        let library = linkage(&sample(&[PT_DYNAMIC], &[DT_NEEDED, DT_NEEDED, DT_NULL])).unwrap();
        assert_eq!(library.to_string(), "no dynamic loader, 2 shared libraries");
        assert!(!loader.is_static() && !library.is_static());
    }

    #[test]
    fn a_real_dynamic_binary_is_told() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let linkage = linkage(&own).unwrap();
        if cfg!(all(target_env = "gnu", not(target_feature = "crt-static"))) {
            assert!(linkage.interpreter && linkage.libraries > 0, "{linkage}");
        }
    }

    #[test]
    fn what_is_torn_or_no_elf_is_an_error_never_static() {
        assert!(linkage(b"#!/bin/sh\n").is_err());
        assert!(linkage(b"\x7fELF\x01\x01").is_err(), "32 bit");
        assert!(linkage(&sample(&[], &[])).is_err(), "no program headers");
        let whole = sample(&[PT_LOAD, PT_DYNAMIC], &[DT_NULL]);
        for length in 0..whole.len() {
            assert!(linkage(&whole[..length]).is_err(), "cut at {length}");
        }
    }
}
