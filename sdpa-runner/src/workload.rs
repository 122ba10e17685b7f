//! A setup with a place: its tensors in the memory of a machine, poisoned and guarded, and the steps that run on them. The
//! same for a GPU and for the emulator. Leaves to others: when to run, and what to make of the results.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use kernel_spec::launch::Step;
use operators::setup::{Fill, NAN, Pattern, Role, Setup};

/// What memory holds when it is handed out or filled again.
pub enum Content<'a> {
    Bytes(&'a Arc<Vec<u8>>),
    /// So many bytes that mean nothing: this pattern, and undefined where a machine knows that.
    Poison(usize, Pattern),
    /// So many zeroes.
    Zero(usize),
}

/// Where tensors lie and steps run.
pub trait Machine {
    /// Memory of a tensor.
    type Memory;

    /// Hands out memory.
    fn place(&self, name: &str, content: &Content) -> Result<Self::Memory>;
    /// Fills it again, in the order of the steps.
    fn refill(&self, memory: &Self::Memory, content: &Content) -> Result<()>;
    /// Runs a step on the memory of these names, after everything before it. It need not have ended on return.
    fn perform<'m>(&self, step: &Step, named: &dyn Fn(&str) -> Option<&'m Self::Memory>) -> Result<()>
    where
        Self::Memory: 'm;
    /// Waits for everything.
    fn finish(&self) -> Result<()>;
    fn read(&self, memory: &Self::Memory) -> Result<Vec<u8>>;
    /// Whether they are these.
    fn holds(&self, memory: &Self::Memory, bytes: &Arc<Vec<u8>>) -> Result<bool>;
    /// Whether nothing around it was written.
    fn guards_intact(&self, memory: &Self::Memory) -> Result<bool>;
}

/// What a setup reads, in memory. What it writes is apart: every launch that counts has its own.
pub struct Workload<M: Machine> {
    /// What was placed.
    pub setup: Arc<Setup>,
    read: BTreeMap<String, M::Memory>,
}

/// What one launch writes: results and scratch.
pub struct Written<M: Machine> {
    memory: BTreeMap<String, M::Memory>,
}

impl<M: Machine> Written<M> {
    /// The memory of a tensor that is written.
    pub fn get(&self, name: &str) -> Option<&M::Memory> {
        self.memory.get(name)
    }
}

impl<M: Machine> Workload<M> {
    /// Places what is read; what the operator's own kernels make is poison until they do.
    pub fn place(machine: &M, setup: Arc<Setup>) -> Result<Workload<M>> {
        let mut read = BTreeMap::new();
        for tensor in setup.tensors.iter().filter(|t| !t.role.is_written()) {
            let content = match &tensor.role {
                Role::Made(bytes) => Content::Poison(bytes.len(), NAN),
                Role::Input(bytes) => Content::Bytes(bytes),
                Role::Output(..) | Role::InPlace(_) | Role::Scratch(..) => continue,
            };
            read.insert(tensor.name.clone(), machine.place(&tensor.name, &content)?);
        }
        Ok(Workload { setup, read })
    }

    /// Memory for what one launch writes, as a launch must find it.
    pub fn written(&self, machine: &M) -> Result<Written<M>> {
        let tensors = self.setup.tensors.iter().filter(|t| t.role.is_written());
        let place = |t: &operators::setup::Tensor| Ok((t.name.clone(), machine.place(&t.name, &content(&t.role))?));
        Ok(Written { memory: tensors.map(place).collect::<Result<_>>()? })
    }

    /// As the first launch found it: what is zeroed once, too.
    pub fn begin_anew(&self, machine: &M, written: &Written<M>) -> Result<()> {
        for tensor in self.setup.tensors.iter().filter(|t| t.role.stays()) {
            if let Some(memory) = written.get(&tensor.name) {
                machine.refill(memory, &content(&tensor.role))?;
            }
        }
        self.refill(machine, written)
    }

    /// As a launch must find it, again.
    pub fn refill(&self, machine: &M, written: &Written<M>) -> Result<()> {
        for tensor in &self.setup.tensors {
            if let Some(memory) = written.memory.get(&tensor.name).filter(|_| !tensor.role.stays()) {
                machine.refill(memory, &content(&tensor.role))?;
            }
        }
        Ok(())
    }

    /// Memory for another launch where none can be filled again: only what is zeroed once is the same.
    pub fn anew(&self, machine: &M, mut written: Written<M>) -> Result<Written<M>> {
        for tensor in self.setup.tensors.iter().filter(|t| t.role.is_written() && !t.role.stays()) {
            written.memory.insert(tensor.name.clone(), machine.place(&tensor.name, &content(&tensor.role))?);
        }
        Ok(written)
    }

    /// Runs steps that write to `written`.
    pub fn run(&self, machine: &M, steps: &[Step], written: &Written<M>) -> Result<()> {
        let named = |name: &str| written.memory.get(name).or_else(|| self.read.get(name));
        steps.iter().try_for_each(|step| machine.perform(step, &named))
    }

    /// Runs the judged steps.
    pub fn launch(&self, machine: &M, written: &Written<M>) -> Result<()> {
        self.run(machine, &self.setup.steps, written)
    }

    /// Has the operator's own kernels make what they make, and compares that with what it must be, bit for bit. The
    /// inner error says where they differ.
    pub fn make(&self, machine: &M) -> Result<std::result::Result<(), String>> {
        if self.setup.making.is_empty() {
            return Ok(Ok(()));
        }
        self.unmake(machine)?;
        self.make_first(machine)
    }

    /// As [`Self::make`], of what has only just been placed, and is poison.
    pub fn make_first(&self, machine: &M) -> Result<std::result::Result<(), String>> {
        self.run(machine, &self.setup.making, &Written { memory: BTreeMap::new() })?;
        machine.finish()?;
        for (name, wanted) in self.holding() {
            if machine.holds(self.memory(name)?, wanted)? {
                continue;
            }
            let found = machine.read(self.memory(name)?)?;
            let at = found.iter().zip(wanted.iter()).position(|(a, b)| a != b);
            let at = at.with_context(|| format!("`{name}` differed from the model, and now it does not"))?;
            let (a, b) = (found[at], wanted[at]);
            return Ok(Err(format!("quantiser: byte {at} of {name} is {a:#04x} where the model has {b:#04x}")));
        }
        Ok(Ok(()))
    }

    /// Poison in what the operator's own kernels make.
    pub fn unmake(&self, machine: &M) -> Result<()> {
        for tensor in &self.setup.tensors {
            if let Role::Made(bytes) = &tensor.role {
                machine.refill(self.memory(&tensor.name)?, &Content::Poison(bytes.len(), NAN))?;
            }
        }
        Ok(())
    }

    /// The memory of a tensor that is read.
    pub fn read(&self, name: &str) -> Option<&M::Memory> {
        self.read.get(name)
    }

    /// All results, one after the other. Finish first.
    pub fn outputs(&self, machine: &M, written: &Written<M>) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.setup.output_bytes());
        for memory in self.results(written) {
            bytes.extend(machine.read(memory)?);
        }
        Ok(bytes)
    }

    /// The memory of the results, in order.
    pub fn results<'w>(&self, written: &'w Written<M>) -> impl Iterator<Item = &'w M::Memory> {
        let names = self.setup.tensors.iter().filter(|t| t.role.is_output()).map(|t| &t.name);
        names.filter_map(|name| written.memory.get(name)).collect::<Vec<_>>().into_iter()
    }

    /// Whether everything that is read still holds what it held.
    pub fn inputs_unchanged(&self, machine: &M) -> Result<bool> {
        for (name, wanted) in self.holding() {
            if !machine.holds(self.memory(name)?, wanted)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether nothing around any tensor was written.
    pub fn guards_intact(&self, machine: &M, written: &Written<M>) -> Result<bool> {
        for memory in self.read.values().chain(written.memory.values()) {
            if !machine.guards_intact(memory)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn memory(&self, name: &str) -> Result<&M::Memory> {
        self.read.get(name).with_context(|| format!("`{name}` has no memory"))
    }

    /// What is read, with the bytes that it must hold.
    fn holding(&self) -> impl Iterator<Item = (&str, &Arc<Vec<u8>>)> {
        self.setup.tensors.iter().filter_map(|t| match &t.role {
            Role::Input(bytes) | Role::Made(bytes) => Some((t.name.as_str(), bytes)),
            Role::Output(..) | Role::InPlace(_) | Role::Scratch(..) => None,
        })
    }
}

fn content(role: &Role) -> Content<'_> {
    match role {
        Role::Input(bytes) | Role::Made(bytes) | Role::InPlace(bytes) => Content::Bytes(bytes),
        Role::Output(len, pattern) => Content::Poison(*len, *pattern),
        Role::Scratch(len, Fill::Poison) => Content::Poison(*len, NAN),
        Role::Scratch(len, Fill::Zero | Fill::ZeroOnce) => Content::Zero(*len),
    }
}
