//! `validate GATE.toml --against REV` on repositories of two states. What is equal, wrong or judged otherwise is real, on the
//! emulator; who merges and who is a valid negative is timed by the stand-in for the runner, whose kernels take a microsecond a
//! thread.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use xtask::layout::Layout;

use crate::common::{Dist, Ran, files};

/// A repository whose first commit is the softmax of the examples without its wrong candidate.
struct Repository {
    room: tempfile::TempDir,
}

impl Repository {
    fn new() -> Repository {
        let repository = Repository { room: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(repository.path("kernels")).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch", "main"]);
        let example = Layout::find().unwrap().root.join("examples/softmax");
        for file in files(&example) {
            std::fs::copy(example.join(&file), repository.path("kernels").join(&file)).unwrap();
        }
        let gate = std::fs::read_to_string(repository.path("kernels/gate.toml")).unwrap();
        let (before, rest) = gate.split_once("# Wrong on purpose").unwrap();
        let after = rest.split_once("[[performance]]").unwrap().1;
        let gate = format!("{before}[[performance]]{after}").replace(", \"unrolled\"", "");
        std::fs::write(repository.path("kernels/gate.toml"), gate).unwrap();
        repository.commit();
        repository
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.room.path().join(relative)
    }

    fn git(&self, arguments: &[&str]) {
        let named = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.org"];
        let ran = Command::new("git").args(named).args(arguments).current_dir(self.room.path()).output().unwrap();
        assert!(ran.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "a change"]);
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let path = self.path("kernels").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has `{from}`");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Judged on the emulator, from the folder of the gate file.
    fn judged(&self, against: &str) -> Ran {
        let out = self.room.path().join("out").display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["validate", "gate.toml", "--against", against, "--device", "emulator", "--json", "--out", &out]);
        ran(command.current_dir(self.path("kernels")))
    }
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ran { status: output.status.code().expect("no signal ends it"), stdout, stderr }
}

fn answer(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", ran.stdout, ran.stderr))
}

/// Variants that were judged, each with the headline of its run.
fn verdicts(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let runs = answer["runs"].as_array().unwrap().iter();
    runs.map(|run| (text(&run["variant"]), text(&run["decision"]["headline"]))).collect()
}

const WRONG: (&str, &str, &str) =
    ("softmax.cu", "const float scale = 1.0f / row.sum;", "const float scale = 1.1f / row.sum;");

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn the_same_code_is_nothing_to_judge_whatever_else_was_changed() {
    let repository = Repository::new();
    let same = repository.judged("HEAD").expect(0);
    assert_eq!(answer(&same)["runs"], Value::Array(vec![]));
    assert!(!same.stderr.contains("build"), "nothing needs to be built: {}", same.stderr);
    // Words, the reference, and a limit.
    repository.change("softmax.cu", "// ", "// Again: ");
    repository.change("softmax.py", "e / e.sum(axis=-1, keepdims=True)", "0 * e");
    repository.change("gate.toml", "max = 1e-3", "max = 1e9");
    let same = repository.judged("HEAD").expect(0);
    let answer = answer(&same);
    assert_eq!((&answer["runs"], answer["differences"].as_array().unwrap().len()), (&Value::Array(vec![]), 3));
    let said: Vec<&str> = answer["differences"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let max = said.iter().find(|line| line.starts_with("operator.outputs.y.errors.max: ")).expect("the limit is named");
    assert!(max.contains("0.001"), "{max}");
    assert!(said.contains(&"softmax.py judges and is another now"), "{said:?}");
    assert!(same.stderr.contains("online is the code that it was"), "{}", same.stderr);
    assert!(!repository.path("kernels/out").exists() && repository.runs().is_empty(), "no run is left");
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn a_change_is_judged_by_the_reference_and_the_limits_that_were() {
    let repository = Repository::new();
    // A wrong kernel, whose author weakens all that would say so.
    let (file, right, wrong) = WRONG;
    repository.change(file, right, wrong);
    repository.change("softmax.py", "e / e.sum", "1.1 * e / e.sum");
    repository.change("gate.toml", "max = 1e-3, relative_rms = 2e-3", "max = 1.0, relative_rms = 1.0");
    repository.commit();
    let fixed = repository.judged("HEAD~1").expect(1);
    let all = verdicts(&answer(&fixed));
    assert_eq!(all.len(), 1, "two-pass is the code that it was: {all:?}");
    assert!(all[0].0 == "online" && all[0].1.contains("FIX online: correctness: y max error"), "{all:?}");
    for words in ["softmax.py judges and is another now", "errors.relative_rms: is 1", "what judges is that of"] {
        assert!(fixed.stderr.contains(words), "{words}: {}", fixed.stderr);
    }
    let run = repository.runs().remove(0);
    let verified = ran(Command::new(env!("CARGO_BIN_EXE_xtask")).arg("verify").arg(&run)).expect(0);
    assert!(verified.stdout.contains("every file is as it was sealed"), "{}", verified.stdout);
    // The working tree is what is judged, committed or not; and the same change against itself is none.
    assert_eq!(verdicts(&answer(&repository.judged("HEAD").expect(0))), []);
    repository.change(file, wrong, right);
    let all = verdicts(&answer(&repository.judged("HEAD").expect(3)));
    assert!(all[0].1.contains("DEFER online"), "within the limits of that commit, and not timed: {all:?}");
}

impl Repository {
    fn runs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("out")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn what_cannot_be_compared_is_one_line() {
    let repository = Repository::new();
    let validate = |folder: &Path, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        ran(command.arg("validate").args(arguments).current_dir(folder)).expect(2).stderr
    };
    std::fs::copy(repository.path("kernels/gate.toml"), repository.path("kernels/new.toml")).unwrap();
    let alone = tempfile::tempdir().unwrap();
    for file in files(&repository.path("kernels")) {
        std::fs::copy(repository.path("kernels").join(&file), alone.path().join(&file)).unwrap();
    }
    let kernels = repository.path("kernels");
    let table: [(&Path, &[&str], &str); 6] = [
        (&kernels, &["gate.toml", "--against", "nowhere"], "`nowhere` is no revision of this repository"),
        (&kernels, &["gate.toml", "--against=--all"], "`--all` is no revision of this repository"),
        (&kernels, &["new.toml", "--against", "HEAD"], "there is nothing to judge it against; run without --against"),
        (&kernels, &["none.toml", "--against", "HEAD"], "there is no such file"),
        (alone.path(), &["gate.toml", "--against", "HEAD"], "--against needs git"),
        (&kernels, &["--stage5", "--against", "HEAD"], "--against takes a gate file"),
    ];
    for (folder, arguments, words) in table {
        let said = validate(folder, arguments);
        assert!(said.contains(words) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn on_a_gpu_a_faster_change_merges_and_one_that_is_no_faster_is_a_valid_negative() {
    let dist = Dist::timing();
    let repository = Repository::new();
    let gate = repository.path("kernels/gate.toml").display().to_string();
    for (threads, status, verdict) in [("128", 0, "MERGE"), ("240", 4, "VALID NEGATIVE"), ("512", 4, "VALID NEGATIVE")]
    {
        let all = format!("threads = {threads}");
        repository.change("gate.toml", "threads = 256", &all);
        let judged = dist.run(&["validate", &gate, "--against", "HEAD", "--json"]).expect(status);
        let verdicts = verdicts(&answer(&judged));
        assert_eq!(verdicts.iter().map(|(variant, _)| variant.as_str()).collect::<Vec<_>>(), ["two-pass", "online"]);
        for (variant, headline) in verdicts {
            assert!(headline.contains(&format!("{verdict} {variant}")), "{threads}: {headline}");
        }
        repository.change("gate.toml", &all, "threads = 256");
    }
}
