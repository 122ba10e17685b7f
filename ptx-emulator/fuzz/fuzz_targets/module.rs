//! Any bytes as a module: parsed, loaded and run for a moment. From the folder `ptx-emulator`, a million inputs:
//!
//!     cargo install cargo-fuzz --version 0.13.1 --locked
//!     RUSTC_BOOTSTRAP=1 cargo fuzz run module fuzz/corpus/module tests/data -- -dict=fuzz/ptx.dict -runs=1000000
//!
//! `RUSTC_BOOTSTRAP` lets a stable compiler take the sanitizer's flag. AddressSanitizer watches the whole run.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/survive.rs"]
mod survive;

fuzz_target!(|input: &[u8]| {
    survive::survive(input);
});
