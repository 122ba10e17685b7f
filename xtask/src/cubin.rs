//! Reads what a cubin says of itself: the machine code of an entry function and the bytes of a constant symbol.
//! A cubin is an ELF file; nothing is executed.

use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};
use sha2::{Digest, Sha256};

pub struct Cubin<'data> {
    elf: ElfFile64<'data>,
}

impl<'data> Cubin<'data> {
    /// Parses the file's bytes.
    pub fn parse(bytes: &'data [u8]) -> Result<Cubin<'data>> {
        Ok(Cubin { elf: ElfFile64::parse(bytes).context("the cubin is not an ELF file")? })
    }

    /// SHA-256 of the machine code of an entry function, hex.
    pub fn code_sha256(&self, entry: &str) -> Result<String> {
        let name = format!(".text.{entry}");
        let section = self.elf.section_by_name(&name).with_context(|| format!("the cubin has no section `{name}`"))?;
        Ok(sha256_hex(section.data()?))
    }

    /// Entry functions and the size of their machine code.
    pub fn code_bytes(&self) -> Result<Vec<(String, usize)>> {
        let named = |section: object::read::elf::ElfSection64<'_, '_>| {
            let entry = section.name().ok()?.strip_prefix(".text.")?.to_owned();
            Some((entry, section.size() as usize))
        };
        Ok(self.elf.sections().filter_map(named).collect())
    }

    /// The initial bytes of a symbol in constant or global memory.
    pub fn symbol(&self, name: &str) -> Result<Vec<u8>> {
        let symbol = self.elf.symbols().find(|s| s.name() == Ok(name));
        let symbol = symbol.with_context(|| format!("the cubin has no symbol `{name}`"))?;
        let section = symbol.section_index().context("the symbol has no section")?;
        let section = self.elf.section_by_index(section)?;
        let start = (symbol.address() - section.address()) as usize;
        match section.data()?.get(start..start + symbol.size() as usize) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => bail!("the symbol `{name}` lies outside its section"),
        }
    }
}

/// SHA-256 as lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
