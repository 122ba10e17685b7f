//! The driver's functions, `cu…`, as its documentation has them: what cudarc, numba and other languages call. What
//! `cuGetExportTable` hides is not here, so that NVIDIA's own runtime does not run on it; ours does not need it.

mod absent;
mod context;
mod memory;
mod module;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device::hold;
use crate::ffi::{Out, Text};
use crate::status::{Call, Status};

/// Answers a call.
fn answer(name: &str, call: impl FnOnce() -> Call) -> i32 {
    // What goes wrong in here must not unwind into the program.
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Status::UNKNOWN));
    if let Err(status) = result
        && !is_question(name, status)
    {
        hold().failed(name, status);
    }
    Status::of(result)
}

/// Whether an error is no more than an answer: not yet, or not here.
fn is_question(name: &str, status: Status) -> bool {
    status == Status::NOT_READY || name.starts_with("cuGetProcAddress")
}

/// A function's name and address.
type Row = (&'static str, u64);

/// Functions of the library: each gives back a code; a table of them all.
macro_rules! driver {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $type),*) -> i32 {
                $crate::driver::answer(stringify!($name), || $body)
            }
        )*

        /// The functions of this file.
        pub(super) fn table() -> Vec<$crate::driver::Row> {
            vec![$((stringify!($name), $name as *const () as u64),)*]
        }
    };
}
use driver;

/// Versions of CUDA in which arguments changed, where both forms are here.
const SINCE: &[(&str, i32)] = &[
    ("cuCtxCreate_v4", 12_050),
    ("cuCtxCreate_v3", 11_040),
    ("cuGetProcAddress_v2", 12_000),
    ("cuCtxGetDevice_v2", 13_000),
    ("cuCtxSynchronize_v2", 13_000),
];

/// The address of a function by the name that the header has for it, with the arguments that it had in a version of CUDA.
fn address(name: &str, version: i32) -> Option<u64> {
    let tables = [context::table(), memory::table(), module::table(), queue::table(), lookup::table(), absent::table()];
    let all: Vec<Row> = tables.into_iter().flatten().collect();
    let versions = ["_v4", "_v3", "_v2", ""].map(|version| format!("{name}{version}"));
    let is_there = |name: &&String| SINCE.iter().all(|(newer, since)| name != newer || version >= *since);
    versions.iter().filter(is_there).find_map(|wanted| all.iter().find(|row| row.0 == wanted)).map(|row| row.1)
}

fn look_up(out: Out<u64>, name: Text, version: i32, status: Option<Out<i32>>) -> Call {
    /// `CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND`.
    const NOT_FOUND: i32 = 1;
    let name = name.get()?;
    let found = address(&name, version);
    if let Some(status) = status {
        status.offer(if found.is_some() { 0 } else { NOT_FOUND });
    }
    out.put(found.unwrap_or(0))?;
    match found {
        Some(_) => Ok(()),
        None => Err(Status::NOT_FOUND),
    }
}

mod lookup {
    use super::look_up;
    use crate::ffi::{Out, Text};

    driver! {
        fn cuGetProcAddress(name: Text, out: Out<u64>, version: i32, _flags: u64) {
            look_up(out, name, version, None)
        }

        fn cuGetProcAddress_v2(name: Text, out: Out<u64>, version: i32, _flags: u64, status: Out<i32>) {
            look_up(out, name, version, Some(status))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_a_function_is_found_by_its_plain_name() {
        let newest = |name: &str| address(name, 13_000);
        assert_eq!(newest("cuMemAlloc"), newest("cuMemAlloc_v2"));
        assert!(newest("cuInit").is_some() && newest("cuGraphLaunch").is_some(), "what is absent refuses by itself");
        assert_eq!(newest("cuNoSuchFunction"), None);
        assert_eq!(address("cuCtxCreate", 11_000), newest("cuCtxCreate_v2"));
        assert_eq!(address("cuCtxCreate", 12_000), newest("cuCtxCreate_v3"));
        assert_eq!(newest("cuCtxCreate"), newest("cuCtxCreate_v4"));
    }
}
