//! The kernels of `examples/`: every entry that their gate files name is found, for every architecture that is asked for most.

use std::path::Path;

use kbench::variant::Language;
use xtask::foreign::compile::{Named, Source, compile};

use super::compile::Room;

/// CUDA C++ of an example, without flags or folders of its own.
fn cuda<'a>(folder: &'a Path, file: &'a str, defines: &'a [(String, String)], entries: &'a [Named]) -> Source<'a> {
    let language = Language::Cuda;
    Source { folder, file, language, defines, flags: &[], include: &[], entries, triton: None }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_examples_compile_without_spills() {
    let room = Room::new();
    let examples = [
        ("softmax", ["softmax_two_pass", "softmax_online<256>", "softmax_unrolled<256>"]),
        ("rmsnorm", ["rmsnorm_tree", "rmsnorm_registers<256>", "rmsnorm_unordered<256>"]),
    ];
    for (name, entries) in examples {
        let folder = room.layout.root.join("examples").join(name);
        let gate = std::fs::read_to_string(folder.join("gate.toml")).unwrap();
        let named = entries.map(|text| {
            assert!(gate.contains(&format!("\"{}\"", text.replace("256", "{threads}"))), "{text}");
            Named { text: text.into(), threads: 256, dynamic_smem_bytes: 0 }
        });
        let file = format!("{name}.cu");
        let defines = [("VEC".to_owned(), "8".to_owned())];
        let source = cuda(&folder, &file, &defines, &named);
        for arch in ["sm_80", "sm_89", "sm_90"] {
            let compiled = compile(&room.layout, &room.tools, name, &source, arch).unwrap().unwrap();
            let record = compiled.record;
            assert_eq!((record.entries.len(), record.spill_bytes(), record.global_bytes), (3, 0, 0), "{name} {arch}");
        }
    }
}

#[test]
fn decoding_compiles_without_spills() {
    let room = Room::new();
    let folder = room.layout.root.join("examples/decode");
    let gate = std::fs::read_to_string(folder.join("gate.toml")).unwrap();
    assert!(gate.contains("define = { WARPS = 8, STAGES = 3, CTAS = 2 }"));
    let defines =
        [("WARPS", "8"), ("STAGES", "3"), ("CTAS", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (arch, d, blocks) in [("sm_80", "64", "1"), ("sm_89", "128", "1"), ("sm_90", "128", "2")] {
        let named = ["NONE", "UNMASKED", "UNFENCED", "UNSCALED"].map(|fault| {
            let text = format!("decode_split<{{d}}, {{blocks}}, __half, {fault}>");
            assert!(gate.contains(&format!("\"{text}\"")), "{text}");
            Named {
                text: text.replace("{d}", d).replace("{blocks}", blocks),
                threads: 256,
                dynamic_smem_bytes: 96 << 10,
            }
        });
        let source = cuda(&folder, "decode.cu", &defines, &named);
        let record = compile(&room.layout, &room.tools, "decode", &source, arch).unwrap().unwrap().record;
        assert_eq!((record.entries.len(), record.spill_bytes(), record.global_bytes), (4, 0, 0), "{arch}");
    }
}
