//! A peer in conversation, and the files it is given; for the tests of every peer.
//! Leaves to others: what a peer must answer.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

/// A running peer.
pub struct Peer {
    pub child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts the peer with this stand-in as its PyTorch.
    pub fn start(torch: &str) -> Peer {
        Peer::start_with(torch, "")
    }

    pub fn start_with(torch: &str, profiler: &str) -> Peer {
        Peer::run("torch_sdpa.py", &[&format!("torch/{torch}")], profiler)
    }

    /// Starts a script of `peers/` with these folders of `data/` before Python's own.
    pub fn run(script: &str, data: &[&str], profiler: &str) -> Peer {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = data.iter().map(|folder| root.join("tests/data").join(folder));
        let mut child = Command::new("python3")
            .arg(root.join("peers").join(script))
            .env("PYTHONPATH", std::env::join_paths(folders).expect("no colons"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("FAKE_PROFILER", profiler)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 starts");
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("is piped"));
        Peer { child, requests, answers }
    }

    pub fn send(&mut self, line: &[u8]) -> Value {
        let requests = self.requests.as_mut().expect("not ended");
        requests.write_all(line).expect("the peer listens");
        requests.write_all(b"\n").expect("the peer listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the peer answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    pub fn ask(&mut self, request: Value) -> Value {
        self.send(request.to_string().as_bytes())
    }

    /// Asks, and expects a refusal that holds `complaint`; then asks on, because a refusal ends nothing.
    #[track_caller]
    pub fn refused(&mut self, request: Value, complaint: &str) {
        let answer = self.ask(request);
        check_refusal(&answer, complaint);
    }

    /// Ends the input and returns how the peer ends.
    pub fn end(mut self) -> ExitStatus {
        self.requests = None;
        self.child.wait().expect("ends")
    }
}

#[track_caller]
pub fn check_refusal(answer: &Value, complaint: &str) {
    assert_eq!(answer["ok"], false, "{answer}");
    let error = answer["error"].as_str().expect("says why");
    assert!(error.contains(complaint), "expected `{complaint}` in: {error}");
    assert!(!error.contains('\n'), "{error}");
}

/// Writes a file of input sets. Set `i` consists of bytes `i + 1`: with the stand-in, calls with it take `i + 1` ms.
pub fn inputs(dir: &Path, sets: u8, shape: [usize; 4]) -> PathBuf {
    let bytes = 2 * shape.iter().product::<usize>();
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for set in 0..sets {
        for operand in ["q", "k", "v"] {
            let offsets = [data.len(), data.len() + bytes];
            let entry = json!({"dtype": "F16", "shape": shape, "data_offsets": offsets});
            header.insert(format!("{operand}{set}"), entry);
            data.extend(std::iter::repeat_n(set + 1, bytes));
        }
    }
    let path = dir.join("inputs.safetensors");
    write_tensors(&path, &Value::Object(header), &data);
    path
}

pub fn write_tensors(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(path, file).expect("writes");
}

pub fn load(file: &Path, sets: u8) -> Value {
    json!({"op": "load", "case": "c", "file": file, "sets": sets, "causal": false, "softmax_scale": 0.125})
}
