//! `python/sdpa_fp8.py` decides how a call is launched by itself, since its users have no Rust. Here it is held to
//! `hopper.rs`, bytes of the parameters included.

use std::io::Write;
use std::process::{Command, Stdio};

use sdpa_kernel::hopper::{AttentionParams, QuantiseParams, Sizes};

/// Heads, S_q, S_kv, D, causal, SMs, rows of the entry's tile.
type Case = (u32, u32, u32, u32, bool, u32, u32);

fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for heads in [1, 3, 16, 48, 256, 32_768] {
        for (seq_q, seq_kv) in
            [(1, 1), (77, 77), (128, 129), (512, 512), (2048, 2048), (700, 3000), (8192, 8192), (1 << 20, 1)]
        {
            for (head_dim, tile_q) in [(64, 64), (64, 256), (128, 128), (128, 192), (96, 64)] {
                for causal in [false, true] {
                    cases.push((heads, seq_q, seq_kv, head_dim, causal, if heads == 3 { 114 } else { 132 }, tile_q));
                }
            }
        }
    }
    cases
}

/// The plan in the words of the script.
fn plan(&(heads, seq_q, seq_kv, head_dim, causal, sms, tile_q): &Case) -> String {
    let sizes = Sizes { heads, seq_q, seq_kv, head_dim, causal };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let attention = AttentionParams {
        images: [1, 2, 3],
        scales: 4,
        out: 5,
        sizes,
        causal_offset: seq_kv as i32 - seq_q as i32,
        softmax_scale: 0.125,
        tile_q,
    };
    let quantise = QuantiseParams { sources: [1, 2, 3], images: [4, 5, 6], scales: 7, seq_q, seq_kv };
    let quantiser = sizes.quantise_geometry(512);
    format!(
        "{{\"entry\": {}, \"fits\": {}, \"grid\": {:?}, \"quantiser\": [{:?}, {}, {}], \"images\": {:?}, \"attention\": \"{}\", \"quantise\": \"{}\"}}",
        sizes.entry(sms).map_or("null".to_owned(), |name| format!("\"{name}\"")),
        sizes.fits(tile_q),
        sizes.attention_geometry(tile_q, 128, sms).grid,
        quantiser.grid,
        quantiser.threads,
        quantiser.cluster,
        sizes.image_bytes(),
        hex(&attention.to_bytes()),
        hex(&quantise.to_bytes())
    )
}

#[test]
fn the_python_file_launches_as_the_rust_record_says() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/sdpa_fp8.py");
    let mut child = Command::new("python3")
        .args([script, "--plans"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let cases = cases();
    let lines: String = cases
        .iter()
        .map(|(h, q, kv, d, causal, sms, tile)| format!("[{h}, {q}, {kv}, {d}, {causal}, {sms}, {tile}]\n"))
        .collect();
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("the script reads");
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).expect("is text");
    assert_eq!(said.lines().count(), cases.len());
    for (line, case) in said.lines().zip(&cases) {
        assert_eq!(line, plan(case), "{case:?}");
    }
}
