//! A loaded PTX module: its kernels and its initialised variables.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::buffer::Buffer;
use crate::isa::space::SYMBOL_BASE;
use crate::lower::{self, LoadError};
use crate::parse::ast::{InitItem, Unit, Var, VarSpace, static_name};
use crate::parse::{self, ParseError};
use crate::program::Program;

/// Unmapped bytes between two module variables.
const SYMBOL_GAP: u64 = 4096;

/// Largest sum of all module variables, gaps included: a corrupt size must not exhaust the host.
const MAX_MODULE_BYTES: u64 = 1 << 30;

/// Content of a module variable as it is before the first launch.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) address: u64,
    pub(crate) constant: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A parsed translation unit.
#[derive(Debug)]
pub struct Module {
    unit: Unit,
    symbols: HashMap<String, u64>,
    images: Vec<Image>,
    files: Arc<HashMap<u32, String>>,
    /// Kernels that were asked for before.
    kernels: Mutex<HashMap<String, Kernel>>,
}

/// A kernel that passed every check of the loader. A copy is as cheap as a pointer.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) program: Arc<Program>,
    pub(crate) files: Arc<HashMap<u32, String>>,
}

impl Module {
    /// Parses PTX text. Instructions are checked when a kernel is taken with [`Module::entry`].
    pub fn parse(source: &str) -> Result<Module, ParseError> {
        Module::parse_at(source, SYMBOL_BASE)
    }

    /// As [`Module::parse`], with the first variable at an address.
    pub(crate) fn parse_at(source: &str, base: u64) -> Result<Module, ParseError> {
        let unit = parse::parse(source)?;
        let mut symbols = HashMap::new();
        let mut next = base;
        let inner = unit
            .functions
            .iter()
            .flat_map(|f| f.vars.iter().enumerate().map(move |(index, var)| (static_name(f, index), var)));
        let all = unit.vars.iter().map(|var| (var.name.clone(), var)).chain(inner);
        let placed: Vec<(String, &Var)> =
            all.filter(|(_, v)| matches!(v.space, VarSpace::Global | VarSpace::Const) && !v.external).collect();
        for (name, var) in &placed {
            next = next.next_multiple_of(u64::from(var.align.max(16)));
            if symbols.insert(name.clone(), next).is_some() {
                return Err(ParseError::new(var.line, format!("`{name}` is defined twice")));
            }
            next += var.bytes + SYMBOL_GAP;
            if next - base > MAX_MODULE_BYTES {
                return Err(ParseError::new(var.line, format!("module variables exceed {MAX_MODULE_BYTES} bytes")));
            }
        }
        let images = placed.iter().map(|(name, var)| image(&unit, name, var, &symbols)).collect::<Result<_, _>>()?;
        let files = Arc::new(unit.files.clone());
        Ok(Module { images, symbols, unit, files, kernels: Mutex::default() })
    }

    /// Names of the kernels, in the order of the text.
    pub fn entries(&self) -> Vec<&str> {
        let kernels = self.unit.functions.iter().filter(|f| f.entry && f.defined);
        kernels.map(|f| f.name.as_str()).collect()
    }

    /// The `.target` of the module, such as `sm_89`.
    pub fn target(&self) -> &str {
        &self.unit.target
    }

    /// Loads a kernel, once; anything in it that cannot be executed faithfully is refused here.
    pub fn entry(&self, name: &str) -> Result<Kernel, LoadError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(kernel.clone());
        }
        let kernel = self.lower(name)?;
        kernels.insert(name.to_owned(), kernel.clone());
        Ok(kernel)
    }

    fn lower(&self, name: &str) -> Result<Kernel, LoadError> {
        let found = self.unit.functions.iter().position(|f| f.entry && f.defined && f.name == name);
        let Some(index) = found else {
            return Err(LoadError {
                line: 0,
                instruction: name.to_owned(),
                message: format!("no such kernel; there are: {}", self.entries().join(", ")),
            });
        };
        let program = Arc::new(lower::lower(&self.unit, index, &self.symbols)?);
        Ok(Kernel { program, files: self.files.clone() })
    }

    /// Initial bytes of a `.global` or `.const` variable.
    pub fn global_symbol(&self, name: &str) -> Option<&[u8]> {
        self.images.iter().find(|i| i.name == name).map(|i| i.bytes.as_slice())
    }

    /// Handle of a `.global` or `.const` variable, to read or set it where the module was loaded.
    pub fn symbol(&self, name: &str) -> Option<Buffer> {
        let image = self.images.iter().find(|image| image.name == name)?;
        Some(Buffer::new(image.address, image.bytes.len()))
    }

    pub(crate) fn images(&self) -> &[Image] {
        &self.images
    }
}

impl Kernel {
    /// Name of the kernel.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Offset and size in bytes of each parameter.
    pub fn parameters(&self) -> Vec<(usize, usize)> {
        let params = self.program.params.iter();
        params.map(|p| (p.offset as usize, p.bytes as usize)).collect()
    }

    /// The parameter block of a launch: one value a parameter, each as many bytes as [`Kernel::parameters`] says; nothing
    /// where they are others.
    pub fn pack(&self, values: &[&[u8]]) -> Option<Vec<u8>> {
        let params = &self.program.params;
        let is_as_declared = params.iter().map(|p| p.bytes as usize).eq(values.iter().map(|value| value.len()));
        if !is_as_declared {
            return None;
        }
        let mut block = vec![0; self.parameter_bytes()];
        for (param, value) in params.iter().zip(values) {
            block[param.offset as usize..][..value.len()].copy_from_slice(value);
        }
        Some(block)
    }

    /// Shared memory in bytes that a block has whatever the launch adds.
    pub fn shared_bytes(&self) -> usize {
        // What the system reserves comes on top of what a block may ask for.
        let own = self.program.shared.iter().filter(|v| Some(v.offset) != self.program.reserved_shared);
        own.map(|v| v.bytes as usize).sum()
    }

    /// Local memory of one thread in bytes.
    pub fn local_bytes(&self) -> usize {
        self.program.local_bytes as usize
    }

    /// Most threads of a block that the kernel was compiled for.
    pub fn max_threads(&self) -> Option<u64> {
        self.program.max_threads
    }

    /// Blocks of a cluster per dimension that the kernel asks for.
    pub fn required_cluster(&self) -> Option<[u32; 3]> {
        self.program.required_cluster
    }

    /// Size in bytes of the parameter block.
    pub fn parameter_bytes(&self) -> usize {
        self.program.param_bytes as usize
    }

    /// Number of decoded operations.
    pub fn operations(&self) -> usize {
        self.program.insts.len()
    }

    /// Registers after decoding: 32-bit rows, 64-bit rows and predicates. Those that are never needed at the same time
    /// share a row.
    pub fn registers(&self) -> (usize, usize, usize) {
        (self.program.w_rows, self.program.d_rows, self.program.p_rows)
    }
}

fn image(unit: &Unit, name: &str, var: &Var, symbols: &HashMap<String, u64>) -> Result<Image, ParseError> {
    let mut bytes = Vec::with_capacity(var.bytes as usize);
    for item in &var.init {
        match item {
            InitItem::Bytes(part) => bytes.extend_from_slice(part),
            InitItem::Address(name, offset) => {
                let address = symbols.get(name).copied().or_else(|| lower::function_address(unit, name));
                let address = address.ok_or_else(|| {
                    ParseError::new(var.line, format!("`{name}` in the value of `{}` is unknown", var.name))
                })?;
                bytes.extend_from_slice(&address.wrapping_add(*offset as u64).to_le_bytes());
            }
        }
    }
    // Variables without a value are zero, as the loader of the hardware leaves them.
    bytes.resize(var.bytes as usize, 0);
    let address = symbols.get(name).copied().unwrap_or(SYMBOL_BASE);
    Ok(Image { name: name.to_owned(), address, constant: var.space == VarSpace::Const, bytes })
}
