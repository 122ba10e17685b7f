//! Gives the reports a name by their sources, so that `verify` knows whether this program would write the same ones.
//! Leaves to others: what the reports say.

use std::path::Path;

fn main() {
    let mut files = vec![Path::new("src/report").to_owned()];
    println!("cargo::rerun-if-changed={}", files[0].display());
    while let Some(at) = files.iter().position(|path| path.is_dir()) {
        let folder = files.swap_remove(at);
        let entries = std::fs::read_dir(&folder).expect("the reports have a folder");
        files.extend(entries.map(|entry| entry.expect("it can be read").path()));
    }
    files.sort();
    // FNV-1a: it tells revisions apart, and nothing rests on nobody being able to make two alike.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in files.iter().flat_map(|file| std::fs::read(file).expect("the reports are files")) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    println!("cargo::rustc-env=KBENCH_REPORTS={hash:016x}");
}
