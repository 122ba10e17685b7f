//! Reads what a cubin says of itself: the machine code of an entry function, the bytes of a constant symbol, and what
//! entries take and occupy. A cubin is an ELF file; nothing is executed.

mod contents;

use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};
use sha2::{Digest, Sha256};

/// The section of what holds for functions of the whole module.
const INFO: &str = ".nv.info";
/// The form of an attribute that has a length.
const SIZED: u8 = 4;

/// One attribute of a section `.nv.info` or `.nv.info.<entry>`.
struct Attribute<'data> {
    code: u8,
    /// The two bytes behind the code: a number, or the length of the value.
    short: u16,
    value: &'data [u8],
}

impl Attribute<'_> {
    /// Three numbers.
    fn extents(&self) -> Option<[u32; 3]> {
        let value = <[u8; 12]>::try_from(self.value).ok()?;
        let word = |at: usize| u32::from_le_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
        Some([word(0), word(4), word(8)])
    }
}

/// `EIATTR_FRAME_SIZE` and `EIATTR_REGCOUNT`, as `cuobjdump -elf` calls them.
const FRAME: u8 = 0x11;
const REGISTERS: u8 = 0x2f;

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

    /// SHA-256 of all machine code, constants and initial values, whatever their sections are called, hex.
    pub fn contents_sha256(&self) -> Result<String> {
        const LOADED: [&str; 3] = [".text", ".nv.constant", ".nv.global.init"];
        let is_loaded = |name: &str| LOADED.iter().any(|kind| name == *kind || name.starts_with(kind));
        let mut hashes = Vec::new();
        for section in self.elf.sections() {
            if section.name().is_ok_and(is_loaded) {
                hashes.push(sha256_hex(section.data()?));
            }
        }
        hashes.sort();
        Ok(sha256_hex(hashes.join("\n").as_bytes()))
    }

    /// Entry functions and the size of their machine code.
    pub fn code_bytes(&self) -> Result<Vec<(String, usize)>> {
        let named = |section: object::read::elf::ElfSection64<'_, '_>| {
            let entry = section.name().ok()?.strip_prefix(".text.")?.to_owned();
            Some((entry, section.size() as usize))
        };
        Ok(self.elf.sections().filter_map(named).collect())
    }

    /// An attribute of an entry function that is a number, from the section `.nv.info`; `None` where the cubin has none.
    fn attribute(&self, code: u8, entry: &str) -> Option<u32> {
        let symbol = self.elf.symbols().find(|s| s.name() == Ok(entry))?.index().0 as u32;
        self.attributes(INFO).ok()?.iter().filter(|attribute| attribute.code == code).find_map(|attribute| {
            let value = <[u8; 8]>::try_from(attribute.value).ok()?;
            let number = u32::from_le_bytes([value[4], value[5], value[6], value[7]]);
            (value[..4] == symbol.to_le_bytes()).then_some(number)
        })
    }

    /// The attributes of a section.
    fn attributes(&self, section: &str) -> Result<Vec<Attribute<'data>>> {
        let found = self.elf.section_by_name(section);
        let mut info = found.with_context(|| format!("the cubin has no section `{section}`"))?.data()?;
        let mut attributes = Vec::new();
        // A form, a code, and either two bytes or the length of what follows.
        while let [form, code, low, high, rest @ ..] = info {
            let short = u16::from_le_bytes([*low, *high]);
            let length = if *form == SIZED { usize::from(short) } else { 0 };
            let split = rest.split_at_checked(length);
            let (value, after) = split.with_context(|| format!("the section `{section}` is cut short"))?;
            attributes.push(Attribute { code: *code, short, value });
            info = after;
        }
        Ok(attributes)
    }

    /// Registers of a thread of an entry function, where the cubin says.
    pub fn registers(&self, entry: &str) -> Option<u32> {
        self.attribute(REGISTERS, entry)
    }

    /// Bytes of an entry function's stack frame, in which spilled registers lie too, where the cubin says.
    pub fn stack_frame_bytes(&self, entry: &str) -> Option<u32> {
        self.attribute(FRAME, entry)
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
