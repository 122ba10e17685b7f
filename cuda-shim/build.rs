//! How the library is linked: programs ask `libcudart.so.13` for symbols that have the version of that name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Of the linkers, GNU's alone gives every symbol the version that the library is named by.
    for argument in ["-fuse-ld=bfd", "-Wl,-soname,libcudart.so.13", "-Wl,--default-symver"] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
