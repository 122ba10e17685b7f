//! The runtime's functions, `cuda…`: what nvcc compiles `<<<>>>` and `cudaMalloc` into.

mod absent;
mod function;
mod machine;
mod memory;
mod queue;
mod register;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::device::hold;
use crate::status::{Call, Status};

thread_local! {
    /// What `cudaGetLastError` says in this thread.
    static LAST: Cell<Status> = const { Cell::new(Status::SUCCESS) };
}

/// Answers a call, and remembers its error.
fn answer(name: &str, call: impl FnOnce() -> Call) -> i32 {
    // What goes wrong in here must not unwind into the program.
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Status::UNKNOWN));
    if let Err(status) = result {
        LAST.set(status);
        if status != Status::NOT_READY {
            hold().failed(name, status);
        }
    }
    Status::of(result)
}

/// Functions of the library: each gives back a code.
macro_rules! runtime {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $type),*) -> i32 {
                $crate::runtime::answer(stringify!($name), || $body)
            }
        )*
    };
}
use runtime;
