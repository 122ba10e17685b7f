//! What a cubin says of its entry functions: parameters, the blocks that they were compiled for, and what they occupy.
//! The codes are those that `cuobjdump -elf` gives names to (`EIATTR_...`).
//! Leaves to others: spills, which no cubin speaks of.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use kbench::resources::{EntryResources, ModuleResources};
use kernel_spec::ptx::{Entry, PtxKind, PtxParam};
use object::{Object, ObjectSection, ObjectSymbol};

use super::{Attribute, Cubin, REGISTERS};

/// `MAX_THREADS`, `REQNTID`, `CTA_PER_CLUSTER`: three extents each.
const MAX_THREADS: u8 = 0x05;
const REQUIRED_BLOCK: u8 = 0x10;
const REQUIRED_CLUSTER: u8 = 0x3d;
/// `KPARAM_INFO`: one parameter; `CBANK_PARAM_SIZE`: the bytes of all.
const PARAMETER: u8 = 0x17;
const PARAMETER_BYTES: u8 = 0x19;
/// `NUM_BARRIERS`, of newer assemblers.
const BARRIERS: u8 = 0x4c;
/// `MIN_STACK_SIZE`: of the entry and whatever it calls.
const STACK: u8 = 0x12;
/// What marks the symbol of an entry function, in `st_other`.
const IS_ENTRY: u8 = 0x10;
/// Shared memory that the system keeps of a CTA's from this architecture on, which the sections count.
const RESERVED: (u32, u32) = (90, 1024);
/// The ABI from which on the architecture stands in the second byte of the header's flags.
const SECOND_BYTE_ABI: u8 = 8;

impl Cubin<'_> {
    /// The number of the architecture that it is for: 89 of `sm_89`, 90 of both `sm_90` and `sm_90a`.
    pub fn sm(&self) -> u32 {
        let flags = match self.elf.flags() {
            object::FileFlags::Elf { e_flags, .. } => e_flags.0,
            _ => 0,
        };
        let abi = self.elf.elf_header().e_ident.abi_version;
        if abi >= SECOND_BYTE_ABI { flags >> 8 & 0xff } else { flags & 0xff }
    }

    /// Whether a device of an architecture, such as `sm_89`, executes it.
    pub fn runs_on(&self, arch: &str) -> bool {
        let number: Option<u32> = arch.trim_start_matches("sm_").trim_end_matches(['a', 'f']).parse().ok();
        number.is_some_and(|device| device / 10 == self.sm() / 10 && device >= self.sm())
    }

    /// Its entry functions, as far as it speaks of their declarations.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.entry_names()?.into_iter().map(|name| self.entry(name)).collect()
    }

    fn entry_names(&self) -> Result<Vec<&str>> {
        let is_entry = |symbol: &object::read::elf::ElfSymbol64<'_, '_>| symbol.elf_symbol().st_other.0 & IS_ENTRY != 0;
        let named: Result<Vec<_>, _> = self.elf.symbols().filter(is_entry).map(|symbol| symbol.name()).collect();
        let named = named.context("the cubin has a symbol without a name")?;
        Ok(named.into_iter().filter(|name| self.section(&format!(".text.{name}")).is_some()).collect())
    }

    fn section(&self, name: &str) -> Option<object::read::elf::ElfSection64<'_, '_>> {
        self.elf.section_by_name(name)
    }

    fn size(&self, name: &str) -> u32 {
        self.section(name).map_or(0, |section| section.size() as u32)
    }

    fn entry(&self, name: &str) -> Result<Entry> {
        let said = self.attributes(&format!(".nv.info.{name}"))?;
        let mut params = Vec::new();
        for attribute in said.iter().filter(|a| a.code == PARAMETER) {
            let value: [u8; 12] = attribute.value.try_into().context("a parameter in a form that is not known")?;
            let half = |at: usize| usize::from(u16::from_le_bytes([value[at], value[at + 1]]));
            let size = u32::from_le_bytes([value[8], value[9], value[10], value[11]]) >> 18;
            params.push((half(4), parameter(half(6), size as usize)));
        }
        params.sort_by_key(|(ordinal, _)| *ordinal);
        let params: Vec<PtxParam> = params.into_iter().map(|(_, parameter)| parameter).collect();
        let bytes = said.iter().find(|a| a.code == PARAMETER_BYTES).map_or(0, |a| usize::from(a.short));
        let end = params.last().map_or(0, |last| last.offset + last.size);
        ensure!(end == bytes, "the parameters of `{name}` end at {end}, and it takes {bytes} bytes");
        let extents = |code: u8| said.iter().find(|a| a.code == code).and_then(Attribute::extents);
        Ok(Entry {
            name: name.to_owned(),
            params,
            max_block: extents(MAX_THREADS),
            required_block: extents(REQUIRED_BLOCK),
            required_cluster: extents(REQUIRED_CLUSTER),
            explicit_cluster: false,
        })
    }

    /// What its entry functions occupy; no spills, of which it does not speak.
    pub fn resources(&self) -> Result<ModuleResources> {
        let entries = self.entry_names()?.into_iter().map(|name| self.occupied(name)).collect::<Result<Vec<_>>>()?;
        if entries.is_empty() {
            bail!("the cubin has no entry function");
        }
        let module_wide = |section: object::read::elf::ElfSection64<'_, '_>| {
            let bank = section.name().ok()?.strip_prefix(".nv.constant")?.parse().ok()?;
            Some((bank, section.size() as u32))
        };
        Ok(ModuleResources {
            global_bytes: self.size(".nv.global") + self.size(".nv.global.init"),
            constant_bytes: self.elf.sections().filter_map(module_wide).filter(|(_, bytes)| *bytes > 0).collect(),
            entries,
            messages: Vec::new(),
        })
    }

    fn occupied(&self, name: &str) -> Result<EntryResources> {
        let missing = |figure: &str| format!("the cubin does not say the {figure} of `{name}`");
        let said = self.attributes(&format!(".nv.info.{name}"))?;
        let shared = self.size(&format!(".nv.shared.{name}"));
        let reserved = if self.sm() >= RESERVED.0 { RESERVED.1 } else { 0 };
        let parameters = self.size(&format!(".nv.constant0.{name}"));
        Ok(EntryResources {
            entry: name.to_owned(),
            arch: format!("sm_{}", self.sm()),
            registers: self.attribute(REGISTERS, name).with_context(|| missing("registers"))?,
            static_smem_bytes: shared.saturating_sub(reserved),
            spill_store_bytes: 0,
            spill_load_bytes: 0,
            stack_frame_bytes: self.stack_frame_bytes(name).with_context(|| missing("stack frame"))?,
            cumulative_stack_bytes: self.attribute(STACK, name).filter(|bytes| *bytes > 0),
            barriers: said.iter().find(|a| a.code == BARRIERS).map(|a| u32::from(a.short)),
            constant_bytes: BTreeMap::from([(0, parameters)]),
            local_bytes: 0,
            bindings: BTreeMap::new(),
            callees: Vec::new(),
        })
    }
}

/// A parameter of which the type is not known, nor the alignment.
fn parameter(offset: usize, size: usize) -> PtxParam {
    let declared = format!("{size} bytes");
    PtxParam { name: String::new(), offset, size, align: 0, kind: PtxKind::Bits, declared }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounded::Limits;
    use crate::compiler;
    use crate::layout::Layout;
    use crate::toolchain;
    use kernel_spec::ptx;

    /// A kernel with something of everything that a cubin speaks of.
    const PTX: &str = r#"
.version 9.0
.target sm_80
.address_size 64
.global .align 4 .b8 table[128];
.const .align 4 .b8 c[28];
.visible .entry plain(.param .u64 p, .param .u32 n, .param .align 8 .b8 s[32], .param .align 2 .b8 h[2])
.maxntid 128, 1, 1
{
	.reg .b32 %r<8>; .reg .b64 %rd<8>;
	.shared .align 4 .b8 t[400];
	.local .align 16 .b8 stack[256];
	ld.param.u64 %rd1, [p]; cvta.to.global.u64 %rd2, %rd1; ld.param.u32 %r1, [n];
	mov.u32 %r2, %tid.x; mul.wide.u32 %rd3, %r2, 4;
	mov.u64 %rd4, t; add.s64 %rd5, %rd4, %rd3; st.shared.u32 [%rd5], %r1; bar.sync 0;
	ld.shared.u32 %r3, [t+8];
	mov.u64 %rd6, stack; add.s64 %rd7, %rd6, %rd3; st.local.u32 [%rd7], %r3; ld.local.u32 %r4, [stack+12];
	ld.global.u32 %r5, [table]; ld.const.u32 %r6, [c+4];
	add.u32 %r4, %r4, %r5; add.u32 %r4, %r4, %r6; st.global.u32 [%rd2], %r4;
	ret;
}
.entry bare()
.reqntid 64
{
	ret;
}
"#;

    #[test]
    fn a_cubin_says_what_its_ptx_and_its_assembler_say() {
        let checkout = Layout::find().unwrap();
        let tools = toolchain::find_or_install(&checkout.target, &|_| ()).unwrap();
        for arch in ["sm_80", "sm_89", "sm_90", "sm_90a", "sm_100"] {
            let work = tempfile::tempdir().unwrap();
            let text = PTX.replace("sm_80", arch);
            std::fs::write(work.path().join("kernel.ptx"), &text).unwrap();
            let limits = Limits { ..compiler::LIMITS };
            compiler::assemble(&tools, arch, &[], work.path(), limits, None).unwrap().unwrap();
            let product = compiler::Product::read(work.path()).unwrap();
            let cubin = Cubin::parse(&product.image).unwrap();
            let own = cubin.resources().unwrap();
            assert_eq!((own.global_bytes, own.constant_variables()), (128, 28), "{arch}");
            for said in &product.resources.entries {
                let entry = own.entries.iter().find(|entry| entry.entry == said.entry).unwrap();
                let figures = |e: &EntryResources| {
                    (e.registers, e.static_smem_bytes, e.stack_frame_bytes, e.cumulative_stack_bytes, e.entry.clone())
                };
                assert_eq!(figures(entry), figures(said), "{arch}");
            }
            let declared = ptx::entries(&text).unwrap();
            for entry in cubin.entries().unwrap() {
                let other = declared.iter().find(|other| other.name == entry.name).unwrap();
                let places = |e: &Entry| e.params.iter().map(|p| (p.offset, p.size)).collect::<Vec<_>>();
                assert_eq!(places(&entry), places(other), "{arch}");
                let blocks = |e: &Entry| (e.max_block, e.required_block, e.required_cluster);
                assert_eq!(blocks(&entry), blocks(other), "{arch}");
            }
            assert_eq!(cubin.entries().unwrap().len(), 2);
            assert!(cubin.runs_on(arch) && cubin.runs_on(&format!("{arch}a")) && !cubin.runs_on("sm_75"), "{arch}");
        }
    }
}
