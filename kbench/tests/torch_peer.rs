//! The PyTorch peer's conversation, driven with stand-ins for PyTorch (`data/torch`), so that it needs no device.
//!
//! What these cannot show is what PyTorch itself does; that is seen where there is a GPU.

mod peer;

use std::path::Path;

use serde_json::{Value, json};

use peer::{Peer, check_refusal, inputs, load, write_tensors};

/// A peer with a case of three input sets.
fn loaded() -> (Peer, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut peer = Peer::start("fake");
    let answer = peer.ask(load(&inputs(dir.path(), 3, [1, 2, 4, 8]), 3));
    assert_eq!(answer["ok"], true, "{answer}");
    (peer, dir)
}

#[test]
fn says_what_is_missing_and_the_remedy() {
    let cases = [
        ("absent", "torch is not installed", "pip install torch"),
        (
            "broken",
            "torch cannot be imported: libcudart.so.13: cannot open shared object file: No such file",
            "reinstall",
        ),
        ("no_device", "torch 2.11.0+cu130 sees no CUDA device: CUDA initialization: no NVIDIA driver on", "nvidia-smi"),
    ];
    for (torch, complaint, remedy) in cases {
        let mut peer = Peer::start(torch);
        // Twice: the second answer must not be that of a half-imported module.
        for _ in 0..2 {
            let answer = peer.ask(json!({"op": "hello"}));
            check_refusal(&answer, complaint);
            assert!(answer["remedy"].as_str().is_some_and(|text| text.contains(remedy)), "{answer}");
        }
        peer.refused(load(Path::new("none"), 1), complaint);
        assert!(peer.end().success(), "{torch}");
    }
}

#[test]
fn hello_names_versions_and_device() {
    let answer = Peer::start("fake").ask(json!({"op": "hello"}));
    let python = answer["python"].clone();
    assert!(python.as_str().is_some_and(|text| text.starts_with("3.")), "{answer}");
    let expected = json!({
        "ok": true, "peer": "torch", "torch": "2.11.0+fake", "cudnn": 91900, "cuda": "13.0", "python": python,
        "device": "Fake", "uuid": "GPU-12-34", "capability": "9.0",
    });
    assert_eq!(answer, expected);
}

#[test]
fn ends_on_bye_and_on_the_end_of_input() {
    let mut peer = Peer::start("absent");
    assert_eq!(peer.ask(json!({"op": "bye"})), json!({"ok": true}));
    assert!(peer.child.wait().expect("ends").success(), "with its input still open");
    assert!(Peer::start("absent").end().success());
}

#[test]
fn bad_requests_are_answered_and_forgotten() {
    let mut peer = Peer::start("fake");
    for line in [&b"nope"[..], b"", b"[1]", b"7", b"\xff\xfe", b"{\"op\":"] {
        let answer = peer.send(line);
        check_refusal(&answer, "a request must be one JSON object a line");
    }
    let deep = "[".repeat(200_000);
    assert_eq!(peer.send(deep.as_bytes())["ok"], false);
    peer.refused(json!({"op": "sing"}), "unknown op \"sing\"; known are hello, load, output, block, bye");
    peer.refused(json!({"op": ["hello"]}), "unknown op");
    peer.refused(json!({"op": "__init__"}), "unknown op");
    peer.refused(json!({}), "unknown op null");
    peer.refused(json!({"op": "hello", "loud": true}), "unknown field `loud`; known are none");
    let call = json!({"op": "block", "backend": "flash", "mode": "call", "launches": 1, "warmup": 0});
    peer.refused(call.clone(), "no case is loaded");
    for (field, value, complaint) in [
        ("backend", json!("triton"), "field `backend` must be one of default, flash, cudnn, efficient, math"),
        ("mode", json!("wall"), "field `mode` must be one of call, graph"),
        ("launches", json!(0), "field `launches` must be a whole number from 1 to 10000"),
        ("launches", json!(true), "field `launches` must be a whole number"),
        ("launches", json!(2.0), "field `launches` must be a whole number"),
        ("warmup", json!(-1), "field `warmup` must be a whole number from 0"),
        ("replays", json!(1), "unknown field `replays`"),
    ] {
        let mut request = call.clone();
        request[field] = value;
        peer.refused(request, complaint);
    }
    let graph = json!({"op": "block", "backend": "flash", "mode": "graph", "launches": 1});
    peer.refused(graph, "field `replays` is missing");
    assert_eq!(peer.ask(json!({"op": "hello"}))["ok"], true);
}

#[test]
fn bad_inputs_are_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut peer = Peer::start("fake");
    let file = dir.path().join("f.safetensors");
    peer.refused(load(&file, 1), "f.safetensors`: No such file or directory");
    let f16 = |shape: &[i64], offsets: [i64; 2]| json!({"dtype": "F16", "shape": shape, "data_offsets": offsets});
    let mut bf16 = f16(&[1, 1, 1, 8], [0, 16]);
    bf16["dtype"] = json!("BF16");
    let cases = [
        (json!({}), "it has no tensor `q0`"),
        (json!([]), "it has no tensor `q0`"),
        (json!({"q0": bf16}), "`q0` is BF16 of shape [1, 1, 1, 8]"),
        (json!({"q0": f16(&[8], [0, 16])}), "wanted is F16 of [B, H, S, D]"),
        (json!({"q0": f16(&[1, 1, 1, 8], [0, 15])}), "cannot be bytes 0 to 15 of 16"),
        (json!({"q0": f16(&[1, 1, 1, 8], [8, 24])}), "cannot be bytes 8 to 24 of 16"),
        (json!({"q0": f16(&[1, 1, -1, -8], [0, 16])}), "it has no tensor `k0`"),
        (json!({"q0": f16(&[1, 1, 0, 8], [0, 0])}), "cannot be bytes 0 to 0"),
        (json!({"q0": {"dtype": "F16"}}), "as safetensors: 'shape'"),
    ];
    for (header, complaint) in cases {
        write_tensors(&file, &header, &[1; 16]);
        peer.refused(load(&file, 1), complaint);
    }
    std::fs::write(&file, [0xff; 32]).expect("writes");
    peer.refused(load(&file, 1), "a header of 18446744073709551615 bytes in a file of 32");
    std::fs::write(&file, b"short").expect("writes");
    peer.refused(load(&file, 1), "as safetensors");
    let whole = inputs(dir.path(), 2, [1, 2, 4, 8]);
    peer.refused(load(&whole, 3), "it has no tensor `q2`");
    let mut request = load(&whole, 2);
    request["softmax_scale"] = json!(0);
    peer.refused(request, "field `softmax_scale` must be a finite number above 0");
    let short = f16(&[1, 1, 1, 4], [0, 8]);
    let long = f16(&[1, 1, 1, 8], [0, 16]);
    write_tensors(&file, &json!({"q0": long, "k0": short, "v0": short}), &[1; 16]);
    peer.refused(load(&file, 1), "set 0 has shapes that do not fit: [1, 1, 1, 8], [1, 1, 1, 4], [1, 1, 1, 4]");
    assert_eq!(peer.ask(load(&whole, 2))["ok"], true);
}

#[test]
fn backends_are_named_by_the_kernels_that_ran() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let answer = Peer::start("fake").ask(load(&inputs(dir.path(), 1, [1, 2, 4, 8]), 1));
    let cudnn = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop";
    let ran = |name: &str, resolved: &str, kernels: &[&str]| json!({"name": name, "available": true, "resolved": resolved, "kernels": kernels});
    let expected = json!([
        ran("default", "cudnn", &[cudnn]),
        ran("flash", "flash", &["void pytorch_flash::flash_fwd_kernel<64>"]),
        ran("cudnn", "cudnn", &[cudnn]),
        ran("efficient", "efficient", &["fmha_cutlassF_f16_aligned_64x64_rf_sm80"]),
        ran("math", "math", &["gemm", "softmax_warp_forward"]),
    ]);
    assert_eq!(answer, json!({"ok": true, "case": "c", "backends": expected}));
}

#[test]
fn a_blind_profiler_is_said_and_not_guessed_around() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let answer = Peer::start_with("fake", "blind").ask(load(&inputs(dir.path(), 1, [1, 2, 4, 8]), 1));
    let flash = json!({"name": "flash", "available": true, "resolved": "unknown", "kernels": null});
    assert_eq!(answer["backends"][1], flash);
}

#[test]
fn an_unavailable_backend_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut peer = Peer::start("fake");
    let answer = peer.ask(load(&inputs(dir.path(), 1, [1, 1, 1, 512]), 1));
    let reason = "head_dim should be no more than 256 but is 512";
    assert_eq!(answer["backends"][1], json!({"name": "flash", "available": false, "reason": reason}));
    assert_eq!(answer["backends"][0]["available"], true);
    let block = |backend| json!({"op": "block", "backend": backend, "mode": "call", "launches": 1, "warmup": 0});
    peer.refused(block("flash"), "backend flash cannot run this case: head_dim should be no more than 256");
    assert_eq!(peer.ask(block("math"))["ok"], true);
}

#[test]
fn calls_rotate_over_the_input_sets() {
    let (mut peer, _dir) = loaded();
    let call = |warmup| json!({"op": "block", "backend": "flash", "mode": "call", "launches": 5, "warmup": warmup});
    assert_eq!(peer.ask(call(0)), json!({"ok": true, "us": [1e3, 2e3, 3e3, 1e3, 2e3]}));
    // The next block goes on where this one ended, after its warm-up.
    assert_eq!(peer.ask(call(2)), json!({"ok": true, "us": [2e3, 3e3, 1e3, 2e3, 3e3]}));
}

#[test]
fn graphs_are_captured_once_and_warmed_up() {
    let (mut peer, dir) = loaded();
    let graph =
        |launches| json!({"op": "block", "backend": "cudnn", "mode": "graph", "launches": launches, "replays": 2});
    // 1 + 2 + 3 + 1 ms over four calls. The warm-up after a capture would show as 125 ms more.
    assert_eq!(peer.ask(graph(4)), json!({"ok": true, "us": [1750.0, 1750.0]}));
    assert_eq!(peer.ask(graph(4)), json!({"ok": true, "us": [1750.0, 1750.0]}));
    assert_eq!(peer.ask(graph(3)), json!({"ok": true, "us": [2e3, 2e3]}));
    // Another case under the same names gets a graph of its own.
    assert_eq!(peer.ask(load(&inputs(dir.path(), 1, [1, 2, 4, 8]), 1))["ok"], true);
    assert_eq!(peer.ask(graph(4)), json!({"ok": true, "us": [1e3, 1e3]}));
}

#[test]
fn outputs_are_written_whole() {
    let (mut peer, dir) = loaded();
    let file = dir.path().join("out.safetensors");
    let output = |set: u8, file: &Path| json!({"op": "output", "backend": "math", "set": set, "file": file});
    assert_eq!(peer.ask(output(2, &file)), json!({"ok": true}));
    let bytes = std::fs::read(&file).expect("is there");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    assert_eq!(length % 8, 0, "the data are aligned");
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("is JSON");
    assert_eq!(header, json!({"out": {"dtype": "F16", "shape": [1, 2, 4, 8], "data_offsets": [0, 128]}}));
    assert_eq!(bytes[8 + length..], [3; 128]);

    peer.refused(output(3, &file), "there is no set 3: the case has 3");
    peer.refused(output(0, &dir.path().join("none/out")), "none/out`: No such file or directory");
    // A directory in its place: the rename fails, and what was written goes.
    let taken = dir.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).expect("creates");
    peer.refused(output(0, &taken), "failed to write `");
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("reads").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["inputs.safetensors", "out.safetensors", "taken"]);
}
