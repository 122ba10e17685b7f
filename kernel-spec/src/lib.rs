//! What a kernel is given, as plain data: element types, expressions over the axes of a shape, the launch of one shape,
//! the layout of its parameters, and the order in which an emulator runs its warps. Data and arithmetic only.
//! Leaves to others: files, processes, devices, and what it is judged by. It knows no other crate of the workspace.

#![warn(missing_docs)]

pub mod demangle;
pub mod dtype;
pub mod expr;
pub mod launch;
pub mod params;
pub mod ptx;
pub mod schedule;
pub mod words;
