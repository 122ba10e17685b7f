//! On which systems programs run, read from the programs: the newest glibc symbol that they ask for, and the libraries. The
//! answer is a platform tag as PEP 600 defines it. Leaves to others: everything else of a wheel.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile64, FileHeader};

/// Libraries that PEP 600 lets a program expect of every system, as far as a Rust program asks for them.
const EXPECTED: [&str; 7] =
    ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"];

/// The oldest glibc that PEP 600 knows, and the oldest that Rust supports, as minor numbers of version 2.
const OLDEST: u32 = 17;

/// What a program asks of the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Shared libraries, by name.
    pub libraries: BTreeSet<String>,
    /// Versions of symbols, such as `GLIBC_2.34`.
    pub versions: BTreeSet<String>,
}

/// Reads a program: an ELF file for Linux on x86-64.
pub fn needs(program: &[u8]) -> Result<Needs> {
    let file = ElfFile64::<Endianness>::parse(program).context("it is no ELF file of 64 bits")?;
    let (header, endian) = (file.elf_header(), file.endian());
    ensure!(header.e_machine(endian) == elf::EM_X86_64, "it is for another processor than x86-64");
    let sections = header.sections(endian, program)?;
    let mut needs = Needs::default();
    if let Some((entries, strings)) = sections.gnu_verneed(endian, program)? {
        let strings = sections.strings(endian, program, strings)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut entries = entries;
        while let Some((library, mut versions)) = entries.next()? {
            needs.libraries.insert(text(library.file(endian, strings)?));
            while let Some(version) = versions.next()? {
                needs.versions.insert(text(version.name(endian, strings)?));
            }
        }
    }
    needs.libraries.extend(libraries(header, endian, program)?);
    Ok(needs)
}

/// The libraries of the dynamic section; those without versions are only there.
fn libraries(header: &FileHeader64<Endianness>, endian: Endianness, program: &[u8]) -> Result<Vec<String>> {
    let sections = header.sections(endian, program)?;
    let Some((entries, strings)) = sections.dynamic(endian, program)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, program, strings)?;
    let needed = entries.iter().filter(|entry| entry.d_tag.get(endian) == elf::DT_NEEDED);
    let name = |entry: &elf::Dyn64<Endianness>| {
        let offset = u32::try_from(entry.d_val.get(endian))?;
        let name = strings.get(offset).ok().context("a library's name lies outside its table")?;
        Ok(String::from_utf8_lossy(name).into_owned())
    };
    needed.map(name).collect()
}

/// The platform tag of a wheel with these programs: `manylinux_2_34_x86_64`.
pub fn tag<'a>(programs: impl IntoIterator<Item = &'a Needs>) -> Result<String> {
    let mut newest = OLDEST;
    for Needs { libraries, versions } in programs {
        for library in libraries {
            ensure!(
                EXPECTED.contains(&library.as_str()),
                "it needs `{library}`, which not every Linux has: no platform tag may promise that"
            );
        }
        for version in versions {
            newest = newest.max(minor_of_glibc(version)?);
        }
    }
    Ok(format!("manylinux_2_{newest}_x86_64"))
}

/// The minor number of the oldest glibc 2 that has the version; those of libgcc are older than any of them.
fn minor_of_glibc(version: &str) -> Result<u32> {
    if version.starts_with("GCC_3.") || version.starts_with("GCC_4.") {
        return Ok(0);
    }
    let minor = version.strip_prefix("GLIBC_2.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.with_context(|| format!("it needs symbols of `{version}`, which no platform tag promises"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(libraries: &[&str], versions: &[&str]) -> Needs {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Needs { libraries: set(libraries), versions: set(versions) }
    }

    #[test]
    fn the_newest_symbol_of_all_programs_decides_and_numbers_are_compared_as_such() {
        let old = of(&["libc.so.6"], &["GLIBC_2.2.5", "GLIBC_2.9", "GCC_4.2.0"]);
        let new = of(&["libc.so.6", "libgcc_s.so.1"], &["GLIBC_2.34", "GLIBC_2.4"]);
        assert_eq!(tag([&old]).unwrap(), "manylinux_2_17_x86_64");
        assert_eq!(tag([&old, &new]).unwrap(), "manylinux_2_34_x86_64");
        for (needs, named) in [
            (of(&["libssl.so.3"], &[]), "libssl.so.3"),
            (of(&["libc.so.6"], &["GLIBC_ABI_DT_RELR"]), "GLIBC_ABI_DT_RELR"),
            (of(&["libc.so.6"], &["GLIBC_PRIVATE"]), "GLIBC_PRIVATE"),
        ] {
            assert!(tag([&needs]).unwrap_err().to_string().contains(named));
        }
    }

    #[test]
    fn a_real_program_asks_for_what_its_table_of_strings_names() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&program).unwrap();
        assert!(needs.libraries.contains("libc.so.6"), "{needs:?}");
        // Another way to the same answer: a name in the table of strings begins after a zero.
        let found = regex::bytes::Regex::new(r"\x00GLIBC_2\.(\d+)").unwrap();
        let minors =
            found.captures_iter(&program).map(|name| String::from_utf8_lossy(&name[1]).parse::<u32>().unwrap());
        let newest = minors.max().unwrap();
        assert_eq!(tag([&needs]).unwrap(), format!("manylinux_2_{}_x86_64", newest.max(OLDEST)));
        assert!(super::needs(b"#!/bin/sh\n").unwrap_err().to_string().contains("no ELF file"));
    }
}
