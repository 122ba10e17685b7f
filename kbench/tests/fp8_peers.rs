//! The FP8 peers' conversations, driven with stand-ins for PyTorch and for the libraries that they call (`data/fp8`), so
//! that they need no device. What these cannot show is what the libraries themselves do.

#[expect(dead_code, reason = "the PyTorch peer is started by other functions")]
mod peer;

use serde_json::{Value, json};

use peer::{Peer, check_refusal, inputs, load};

/// Script, name, version key, version.
const PEERS: [[&str; 4]; 2] = [
    ["cudnn_fp8.py", "cudnn", "cudnn_frontend", "1.20.0+fake"],
    ["fa3_fp8.py", "fa3", "flash_attn", "flash_attn_interface 3.0.0+fake"],
];

fn start(script: &str) -> Peer {
    Peer::run(script, &["torch/fake", "fp8"], "")
}

fn backend(answer: &Value) -> &Value {
    assert_eq!(answer["ok"], true, "{answer}");
    assert_eq!(answer["backends"].as_array().map(Vec::len), Some(1), "{answer}");
    &answer["backends"][0]
}

#[test]
fn a_library_that_is_missing_is_named_with_the_remedy() {
    let cases = [
        ("cudnn_fp8.py", "nvidia-cudnn-frontend is not installed", "pip install nvidia-cudnn-frontend"),
        (
            "fa3_fp8.py",
            "neither fa3_fwd_interface nor flash_attn_interface is installed",
            "github.com/Dao-AILab/flash-attention",
        ),
    ];
    for (script, complaint, remedy) in cases {
        let mut peer = Peer::run(script, &["torch/fake"], "");
        let answer = peer.ask(json!({"op": "hello"}));
        check_refusal(&answer, complaint);
        assert!(answer["remedy"].as_str().is_some_and(|text| text.contains(remedy)), "{answer}");
        assert!(peer.end().success());
        // Without PyTorch that is what is missing first.
        let answer = Peer::run(script, &["torch/absent", "fp8"], "").ask(json!({"op": "hello"}));
        check_refusal(&answer, "torch is not installed");
    }
}

#[test]
fn hello_names_the_library() {
    for [script, name, key, version] in PEERS {
        let answer = start(script).ask(json!({"op": "hello"}));
        assert_eq!((&answer["peer"], &answer[key]), (&json!(name), &json!(version)), "{answer}");
        assert_eq!(answer["uuid"], "GPU-12-34");
    }
}

#[test]
fn calls_and_graphs_take_the_sets_in_turn_and_outputs_are_the_sets_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = inputs(dir.path(), 3, [1, 2, 4, 8]);
    for [script, ..] in PEERS {
        let mut peer = start(script);
        let loaded = peer.ask(load(&file, 3));
        assert_eq!((&backend(&loaded)["name"], &backend(&loaded)["available"]), (&json!("fp8"), &json!(true)));
        let call = json!({"op": "block", "backend": "fp8", "mode": "call", "launches": 4, "warmup": 0});
        assert_eq!(peer.ask(call), json!({"ok": true, "us": [1e3, 2e3, 3e3, 1e3]}), "{script}");
        let graph = json!({"op": "block", "backend": "fp8", "mode": "graph", "launches": 4, "replays": 2});
        assert_eq!(peer.ask(graph), json!({"ok": true, "us": [1750.0, 1750.0]}), "{script}");
        let out = dir.path().join("out");
        assert_eq!(
            peer.ask(json!({"op": "output", "backend": "fp8", "set": 1, "file": out})),
            json!({"ok": true}),
            "{script}"
        );
        assert!(std::fs::read(&out).expect("is there").ends_with(&[2; 128]), "{script}");
        let flash = json!({"op": "block", "backend": "flash", "mode": "call", "launches": 1, "warmup": 0});
        peer.refused(flash, "field `backend` must be one of fp8");
    }
}

#[test]
fn a_case_that_the_library_refuses_says_why_and_the_next_one_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let refusals = [
        ("cudnn_fp8.py", "cudnnGraphNotSupportedError: [cudnn_frontend] ERROR: head_dim should be at most 128 for fp8"),
        ("fa3_fp8.py", "FlashAttention forward only supports head dimension at most 256"),
    ];
    for (script, reason) in refusals {
        let mut peer = start(script);
        let loaded = peer.ask(load(&inputs(dir.path(), 1, [1, 1, 1, 512]), 1));
        assert_eq!(backend(&loaded)["available"], false);
        assert_eq!(backend(&loaded)["reason"], reason);
        let call = json!({"op": "block", "backend": "fp8", "mode": "call", "launches": 1, "warmup": 0});
        peer.refused(call.clone(), "backend fp8 cannot run this case");
        let loaded = peer.ask(load(&inputs(dir.path(), 1, [1, 2, 4, 8]), 1));
        assert_eq!(backend(&loaded)["available"], true, "{loaded}");
        assert_eq!(peer.ask(call), json!({"ok": true, "us": [1e3]}));
    }
}
