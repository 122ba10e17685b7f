//! What the instruction set says: operations with their operands, what they read and write, and the formula of
//! every row operation. Below the lowering, which makes operations, and the executor, which runs them.

pub(crate) mod alu_table;
pub(crate) mod engines;
pub(crate) mod op;
pub(crate) mod reads_writes;
pub(crate) mod reduction;
pub(crate) mod slot;
pub(crate) mod space;
pub(crate) mod undefined;
