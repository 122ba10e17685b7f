//! How wide and in which colours everything is printed by default: on terminals of 80 and 120 columns, with and without colours, and
//! into a pipe.

use std::path::Path;

use crate::common::{Dist, NO_GPU};

/// No line is wider, however wide the terminal is.
const WIDEST: usize = 100;

/// What is printed for a person. `RUN` and `OLD` are runs: one of today without a GPU, and one that was
/// recorded on a GPU.
const COMMANDS: &[&str] = &[
    "doctor",
    "list",
    "list suites",
    "list variants",
    "list toggles",
    "list shapes",
    "list gates",
    "build stage2",
    "validate --stage2",
    "validate --flagship",
    "bench stage3b",
    "sanitize stage2",
    "ncu stage2 --against stage1",
    "tune stage5",
    "ceilings",
    "report RUN",
    "report OLD",
    "verify RUN",
    "compare RUN RUN",
    "compare OLD RUN",
    "history",
    "self-test",
    "accept RUN",
    "validate stage9",
    "--help",
    "validate --help",
    "tune --help",
    "fleet --help",
    "accept --help",
];

/// Unpacks and seals a run of a GPU.
fn recorded(parent: &Path) -> String {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/run-format-1.tar.gz");
    let status = std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(parent).status();
    assert!(status.is_ok_and(|status| status.success()), "tar unpacks the run");
    let path = parent.join("run-format-1");
    xtask::run_dir::RunDir::open(&path).unwrap().seal().unwrap();
    path.display().to_string()
}

/// Lines that are wider; a path that no line holds stays whole, on a line of its own.
fn wide(text: &str, most: usize) -> Vec<&str> {
    let is_path = |line: &str| line.contains('/') && !line.trim().contains(' ');
    text.lines().filter(|line| line.chars().count() > most && !is_path(line)).collect()
}

/// Without what differs from one call to the next: how long something took, when it began, what a run is called after that, and
/// its root.
fn timeless(text: &str) -> String {
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let lines = text.lines().filter(|line| !line.starts_with("root ") && !line.starts_with("evidence: "));
    lines.flat_map(str::chars).map(digits).collect()
}

#[test]
#[ignore = "takes longer; .ci/run runs it"]
fn nothing_is_wider_than_a_hundred_columns_and_colours_are_all_that_a_terminal_adds() {
    let dist = Dist::new(NO_GPU);
    dist.run(&["validate", "--stage5", "--allow-deferred"]).expect(0);
    let (run, old) = (dist.runs()[0].display().to_string(), recorded(&dist.path("")));
    let mut faults = Vec::new();
    let mut coloured = 0;
    for line in COMMANDS {
        let words: Vec<&str> = line
            .split_whitespace()
            .map(|word| match word {
                "RUN" => run.as_str(),
                "OLD" => old.as_str(),
                word => word,
            })
            .collect();
        let piped = dist.run_in_a_pipe(&words);
        // Which one is another test's; none of them is what a panic ends with.
        assert!((0..=4).contains(&piped.status), "{line}: {} {}", piped.status, piped.stderr);
        for (columns, has_colours) in [("80", false), ("120", true)] {
            let shown = dist.run_in_a_terminal(columns, has_colours, &words);
            let plain = console::strip_ansi_codes(&shown.stdout).into_owned();
            let is_coloured = plain != shown.stdout;
            coloured += usize::from(is_coloured);
            if is_coloured && !has_colours {
                faults.push(format!("{line}: colours in spite of NO_COLOR"));
            }
            let most = if has_colours { WIDEST } else { 80 };
            let errors: Vec<&str> = shown.stderr.lines().filter(|line| !line.starts_with("error: ")).collect();
            for (what, text) in [("standard output", &plain), ("standard error", &errors.join("\n"))] {
                faults.extend(wide(text, most).iter().map(|wide| format!("{line} at {columns}, {what}: {wide}")));
            }
            if has_colours && timeless(&plain) != timeless(&piped.stdout) && !line.starts_with("history") {
                faults.push(format!("{line}: a pipe gets\n{}\nand a terminal\n{plain}", piped.stdout));
            }
        }
        faults.extend(wide(&piped.stdout, WIDEST).iter().map(|wide| format!("{line} in a pipe: {wide}")));
        if piped.stdout.contains('\u{1b}') || piped.stderr.contains('\u{1b}') {
            faults.push(format!("{line}: escapes in a pipe"));
        }
    }
    assert!(faults.is_empty(), "{}:\n{}", faults.len(), faults.join("\n"));
    assert!(coloured > 10, "{coloured} had colours");
}
