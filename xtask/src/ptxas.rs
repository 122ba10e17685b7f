//! Reads the log of `ptxas -v` into [`kbench::resources`].
//!
//! The log is meant for people and changes between versions, so this reader trusts nothing it does not know:
//! a line that it cannot place, or a kernel without its figures, is an error that names the line, since a
//! figure silently read as 0 would pass every gate. Real logs of several versions are under `tests/data/ptxas`.
//!
//! What is *not* printed is zero only where `ptxas` omits zeros by design (its format strings in 11.8 to 13.5 print
//! shared, local and constant memory and bound objects when there are any). Registers, stack frame and spills
//! are always printed and so are required; barriers and the cumulative stack depend on the version and stay unknown.
//!
//! Running `ptxas` is left to the build, and judging the figures to the gates.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kbench::resources::{AssemblerMessage, EntryResources, FunctionFrame, ModuleResources, Severity};
use regex::{Captures, Regex};
use thiserror::Error;

/// Why a log could not be read. Line numbers start at 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PtxasError {
    /// The assembler itself gave up, so the log has no figures worth reading.
    #[error("ptxas failed: {text} (line {line} of its log)")]
    Failed {
        /// Where the log says so first.
        line: usize,
        text: String,
    },
    /// A line that belongs to no known form, or stands where it makes no sense.
    #[error("failed to read line {line} of the ptxas log: {reason}: `{text}`")]
    Line {
        /// Its place in the log.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
        text: String,
    },
    /// A kernel is announced, and the log goes on or ends without one of its figures.
    #[error("failed to read the ptxas log: entry `{entry}`, announced on line {line}, has no {figure}")]
    Missing {
        entry: String,
        /// Where it is announced.
        line: usize,
        figure: &'static str,
    },
    /// The log never states the module's global memory, as every verbose log does.
    #[error("failed to read the ptxas log: no line states the module's global memory (was ptxas run with -v?)")]
    NoModuleLine,
    /// The log names no kernel.
    #[error("failed to read the ptxas log: it names no entry function")]
    NoEntry,
}

/// Reads the log of one `ptxas -v` run over one module. Pass it untrimmed: a last line without its newline is
/// taken for a log that was cut.
pub fn parse(log: &str) -> Result<ModuleResources, PtxasError> {
    if let Some(failure) = find_failure(log) {
        return Err(failure);
    }
    let mut reader = Reader::default();
    for (index, text) in log.lines().enumerate() {
        reader.line(Line { number: index + 1, text })?;
    }
    if !log.is_empty() && !log.ends_with('\n') {
        let last = Line { number: log.lines().count(), text: log.lines().last().unwrap_or_default() };
        return Err(last.error("a line without an end, so its last figures may be lost"));
    }
    reader.finish()
}

/// A pattern compiled once. All of them are fixed text, so a fault in one shows in every test.
macro_rules! pattern {
    ($name:ident, $regex:literal) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($regex).expect("a fixed pattern"));
    };
}

pattern!(FAILURE, r"^ptxas (?<text>(?:\S.*; )?(?:error|fatal)\s*:.*)$");
pattern!(MODULE, r"^ptxas info\s+: (?<bytes>\d+) bytes gmem(?<rest>(?:, \d+ bytes cmem\[\d+\])*)$");
pattern!(ENTRY, r"^ptxas info\s+: Compiling entry function '(?<entry>[^']+)' for '(?<arch>sm_\d+[a-z]?)'$");
pattern!(FUNCTION, r"^ptxas info\s+: Function properties for (?<function>\S+)$");
pattern!(
    FRAME,
    r"^    (?<stack>\d+) bytes stack frame, (?<stores>\d+) bytes spill stores, (?<loads>\d+) bytes spill loads$"
);
pattern!(USED, r"^ptxas info\s+: Used (?<registers>\d+) registers(?<rest>(?:, .+)?)$");
pattern!(
    USED_ITEM,
    r"^(?:used (?<barriers>\d+) barriers|(?<stack>\d+) bytes cumulative stack size|(?<smem>\d+) bytes smem|(?<lmem>\d+) bytes lmem|(?<cmem>\d+) bytes cmem\[(?<bank>\d+)\]|(?<bound>\d+) (?<kind>textures|surfaces|samplers))$"
);
pattern!(TIME, r"^ptxas info\s+: Compile time = \d+(?:\.\d+)? ms$");
pattern!(
    MESSAGE,
    r"^ptxas(?: .+, line (?<line>\d+);)? (?<severity>info|warning)\s+:\s+(?:\((?<code>C\d+)\) )?(?<text>\S.*)$"
);
pattern!(NAMED_FUNCTION, r"(?:function|for) '(?<function>[^']+)'");
// Wording of the figure lines: a remark that speaks so is more likely a figure in a form not yet known.
pattern!(FIGURE_WORDS, r"^(?:Used |Compiling |Function properties|Compile time)|\d+ bytes|\d+ registers");

#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    fn error(self, reason: &'static str) -> PtxasError {
        PtxasError::Line { line: self.number, reason, text: self.text.to_owned() }
    }

    /// A figure that a pattern has matched as digits; only its size can still be wrong.
    fn number(self, found: &Captures<'_>, group: &str) -> Result<u32, PtxasError> {
        found[group].parse().map_err(|_| self.error("a figure too large to be true"))
    }
}

/// The kernel being read: announced, then its frame, then its registers, then the frames of what it calls.
struct Open {
    line: usize,
    entry: String,
    arch: String,
    frame: Option<FunctionFrame>,
    used: Option<Used>,
    callees: Vec<FunctionFrame>,
}

/// The figures of a `Used ...` line.
#[derive(Default)]
struct Used {
    registers: u32,
    barriers: Option<u32>,
    cumulative_stack: Option<u32>,
    smem: Option<u32>,
    lmem: Option<u32>,
    constant: BTreeMap<u32, u32>,
    bindings: BTreeMap<String, u32>,
}

#[derive(Default)]
struct Reader {
    module: Option<(u32, BTreeMap<u32, u32>)>,
    entries: Vec<EntryResources>,
    messages: Vec<AssemblerMessage>,
    open: Option<Open>,
    /// A function was named, and its frame must be on the very next line.
    awaited: Option<(usize, String)>,
}

impl Reader {
    fn line(&mut self, line: Line<'_>) -> Result<(), PtxasError> {
        if let Some(found) = FRAME.captures(line.text) {
            return self.frame(line, &found);
        }
        if self.awaited.is_some() {
            return Err(line.error("stack frame and spills were expected here"));
        }
        if line.text.trim().is_empty() || TIME.is_match(line.text) {
            Ok(())
        } else if let Some(found) = MODULE.captures(line.text) {
            self.module(line, &found)
        } else if let Some(found) = ENTRY.captures(line.text) {
            self.entry(line, &found)
        } else if let Some(found) = FUNCTION.captures(line.text) {
            self.awaited = Some((line.number, found["function"].to_owned()));
            Ok(())
        } else if let Some(found) = USED.captures(line.text) {
            self.used(line, &found)
        } else {
            self.message(line)
        }
    }

    fn module(&mut self, line: Line<'_>, found: &Captures<'_>) -> Result<(), PtxasError> {
        if self.module.is_some() {
            return Err(line.error("a second module in one log"));
        }
        let mut constant = BTreeMap::new();
        for item in items(&found["rest"]) {
            let item = USED_ITEM.captures(item).ok_or_else(|| line.error("an unknown figure"))?;
            insert_once(line, &mut constant, line.number(&item, "bank")?, line.number(&item, "cmem")?)?;
        }
        self.module = Some((line.number(found, "bytes")?, constant));
        Ok(())
    }

    fn entry(&mut self, line: Line<'_>, found: &Captures<'_>) -> Result<(), PtxasError> {
        self.close()?;
        if self.entries.iter().any(|known| known.entry == found["entry"]) {
            return Err(line.error("an entry function that the log has named before"));
        }
        self.open = Some(Open {
            line: line.number,
            entry: found["entry"].to_owned(),
            arch: found["arch"].to_owned(),
            frame: None,
            used: None,
            callees: Vec::new(),
        });
        Ok(())
    }

    fn frame(&mut self, line: Line<'_>, found: &Captures<'_>) -> Result<(), PtxasError> {
        let (_, function) = self.awaited.take().ok_or_else(|| line.error("a frame of no named function"))?;
        let frame = FunctionFrame {
            function,
            stack_frame_bytes: line.number(found, "stack")?,
            spill_store_bytes: line.number(found, "stores")?,
            spill_load_bytes: line.number(found, "loads")?,
        };
        let open = self.open.as_mut().ok_or_else(|| line.error("a frame outside any entry function"))?;
        if frame.function != open.entry {
            open.callees.push(frame);
        } else if open.frame.replace(frame).is_some() {
            return Err(line.error("a second frame for the same entry function"));
        }
        Ok(())
    }

    fn used(&mut self, line: Line<'_>, found: &Captures<'_>) -> Result<(), PtxasError> {
        let mut used = Used { registers: line.number(found, "registers")?, ..Used::default() };
        for item in items(&found["rest"]) {
            used.add(line, item)?;
        }
        let open = self.open.as_mut().ok_or_else(|| line.error("registers outside any entry function"))?;
        if open.used.replace(used).is_some() {
            return Err(line.error("a second register count for the same entry function"));
        }
        Ok(())
    }

    fn message(&mut self, line: Line<'_>) -> Result<(), PtxasError> {
        let found = MESSAGE.captures(line.text).ok_or_else(|| line.error("a line of no known form"))?;
        let severity = if &found["severity"] == "warning" { Severity::Warning } else { Severity::Info };
        let code = found.name("code").map(|code| code.as_str().to_owned());
        let text = found["text"].to_owned();
        if severity == Severity::Info && code.is_none() && FIGURE_WORDS.is_match(&text) {
            return Err(line.error("figures in a form not known"));
        }
        let ptx_line = found.name("line").map(|_| line.number(&found, "line")).transpose()?;
        let function = NAMED_FUNCTION.captures(&text).map(|found| found["function"].to_owned());
        self.messages.push(AssemblerMessage { severity, code, ptx_line, function, text });
        Ok(())
    }

    /// Takes the kernel being read as complete, or says what it lacks.
    fn close(&mut self) -> Result<(), PtxasError> {
        if let Some(open) = self.open.take() {
            self.entries.push(open.complete()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ModuleResources, PtxasError> {
        if let Some((line, entry)) = self.awaited.take() {
            return Err(PtxasError::Missing { entry, line, figure: "stack frame and spills" });
        }
        self.close()?;
        let (global_bytes, constant_bytes) = self.module.ok_or(PtxasError::NoModuleLine)?;
        if self.entries.is_empty() {
            return Err(PtxasError::NoEntry);
        }
        Ok(ModuleResources { global_bytes, constant_bytes, entries: self.entries, messages: self.messages })
    }
}

impl Open {
    fn complete(self) -> Result<EntryResources, PtxasError> {
        let missing = |figure| PtxasError::Missing { entry: self.entry.clone(), line: self.line, figure };
        let Some(frame) = &self.frame else {
            return Err(missing("stack frame and spills"));
        };
        let Some(used) = self.used else {
            return Err(missing("register count"));
        };
        // Saturating: a sum that large fails every gate, which is the right end for it.
        let total =
            |bytes: fn(&FunctionFrame) -> u32| self.callees.iter().map(bytes).fold(bytes(frame), u32::saturating_add);
        Ok(EntryResources {
            registers: used.registers,
            static_smem_bytes: used.smem.unwrap_or(0),
            spill_store_bytes: total(|frame| frame.spill_store_bytes),
            spill_load_bytes: total(|frame| frame.spill_load_bytes),
            stack_frame_bytes: frame.stack_frame_bytes,
            cumulative_stack_bytes: used.cumulative_stack,
            barriers: used.barriers,
            constant_bytes: used.constant,
            local_bytes: used.lmem.unwrap_or(0),
            bindings: used.bindings,
            entry: self.entry,
            arch: self.arch,
            callees: self.callees,
        })
    }
}

impl Used {
    fn add(&mut self, line: Line<'_>, item: &str) -> Result<(), PtxasError> {
        let found = USED_ITEM.captures(item).ok_or_else(|| line.error("an unknown figure"))?;
        if found.name("cmem").is_some() {
            return insert_once(line, &mut self.constant, line.number(&found, "bank")?, line.number(&found, "cmem")?);
        }
        if found.name("bound").is_some() {
            return insert_once(line, &mut self.bindings, found["kind"].to_owned(), line.number(&found, "bound")?);
        }
        let places = [
            ("barriers", &mut self.barriers),
            ("stack", &mut self.cumulative_stack),
            ("smem", &mut self.smem),
            ("lmem", &mut self.lmem),
        ];
        for (group, place) in places {
            if found.name(group).is_some() && place.replace(line.number(&found, group)?).is_some() {
                return Err(line.error("the same figure twice"));
            }
        }
        Ok(())
    }
}

/// The parts of `, a, b, c`.
fn items(rest: &str) -> impl Iterator<Item = &str> {
    rest.split(", ").skip(1)
}

fn insert_once<K: Ord>(line: Line<'_>, map: &mut BTreeMap<K, u32>, key: K, value: u32) -> Result<(), PtxasError> {
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(line.error("the same figure twice")),
    }
}

/// The first complaint of an assembler that gave up. Looked for before anything else, because the lines after it
/// are incomplete for a reason that matters more than their form.
fn find_failure(log: &str) -> Option<PtxasError> {
    log.lines().enumerate().find_map(|(index, text)| {
        let found = FAILURE.captures(text)?;
        Some(PtxasError::Failed { line: index + 1, text: found["text"].to_owned() })
    })
}
