//! The job of a kind: one array task for each gate file and repeat. The script says by markers in the shared folder how far it
//! came, because a scheduler forgets; and a task that is queued again goes on with the run that it began.
//! Leaves to others: what Slurm is asked for.

use std::path::Path;

use super::config::Request;
use super::jobs::Submission;
use super::{EMULATOR, Fleet};

/// A word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn shown(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// The script of a kind.
pub fn script(fleet: &Fleet, request: &Request) -> String {
    let kind = &request.kind;
    let mut text = format!(
        "#!/bin/bash\n#SBATCH --job-name={}\n#SBATCH --array=0-{}\n#SBATCH --output=\"{}/logs/{kind}-%a.txt\"\n\
         #SBATCH --open-mode=append\n#SBATCH --requeue\n",
        Submission { kind: kind.clone(), number: 1, tasks: Vec::new(), job: None }.name(fleet),
        fleet.tasks_of_kind() - 1,
        fleet.path.display()
    );
    for option in &request.options {
        text.push_str(&format!("#SBATCH {option}\n"));
    }
    text.push_str(&format!(
        "\nfleet={}\ndist={}\ntask=$fleet/tasks/{kind}-$SLURM_ARRAY_TASK_ID\n",
        shown(&fleet.path),
        shown(&fleet.shared().join(&fleet.record.dist)),
    ));
    if !fleet.record.search {
        text.push_str(&gates(fleet, request));
    }
    text.push_str(MARKERS);
    // In this very shell, because most setups set variables.
    for line in &request.setup {
        text.push_str(&format!("{{\n{line}\n}} || exit\n"));
    }
    text.push_str(WORK);
    text + if fleet.record.search { TAKE_PART } else { VALIDATE }
}

/// What the tasks of a kind validate.
fn gates(fleet: &Fleet, request: &Request) -> String {
    let gates = fleet.record.gates.iter().map(|gate| match &gate.suite {
        Some(suite) => quoted(suite),
        None => shown(&fleet.shared().join(&gate.file)),
    });
    let device = if request.device == EMULATOR { "emulator" } else { "gpu" };
    let gates: Vec<String> = gates.collect();
    format!("gates=({})\nrepeats={}\ndevice={device}\n", gates.join(" "), fleet.record.repeats)
}

/// From the start to the setup. Whatever ends the script, its last act is the end marker.
const MARKERS: &str = r#"
step=setup
# That of whoever submits is of another machine; the setup may name one for compilers and caches on the node.
unset CARGO_TARGET_DIR
signal=
child=
# The name under which it takes part in a search, which whoever waits for it sees go.
worker=

# A shared folder that is away is waited for, ten minutes; `away` says that it was.
here() {
    away=
    for _ in $(seq 600); do
        [ ! -f "$fleet/fleet.json" ] || return 0
        away=1
        sleep 1
    done
    return 1
}

# A marker appears whole, and no folder is made for it: where the shared one is away, it would be another.
mark() {
    for _ in $(seq 600); do
        (cd "$task" && printf '%s\n' "$2" >".$1" && mv ".$1" "$1") 2>/dev/null && return
        sleep 1
    done
}

aside() {
    (cd "$task" && mkdir -p abandoned && mv "$1" abandoned/)
}

# Slurm sends its signal to every process of a job, and a runner that dies of it a moment before its pipeline does looks like
# a kernel that failed. What was recorded in that moment is not gone on with.
distrust() {
    find "$task/runs" \( -name check.json -o -name samples.json \) -newermt '10 seconds ago' | while read -r file; do
        run=$(dirname "$file")
        [ ! -d "$run" ] || aside "$run"
    done
}

ended() {
    status=$?
    trap - EXIT
    trap '' TERM
    if [ -n "$child" ]; then
        kill -KILL "$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    if [ -n "$signal" ]; then
        distrust
        mark "end-$attempt.json" "{\"step\":\"$step\",\"signal\":\"$signal\"}"
    else
        mark "end-$attempt.json" "{\"step\":\"$step\",\"status\":$status}"
    fi
    exit "$status"
}

here
# Tries are counted over all jobs that have had the task.
attempt=0
while [ -e "$task/begin-$attempt.json" ]; do
    attempt=$((attempt + 1))
done
trap ended EXIT
trap 'signal=TERM; exit 143' TERM

echo "== try $attempt on $SLURMD_NODENAME"
begun="\"node\":\"$SLURMD_NODENAME\",\"at\":\"$(date -u +%FT%TZ)\""
mark "begin-$attempt.json" "{\"attempt\":$attempt,\"job\":$SLURM_ARRAY_JOB_ID,$begun}"
"#;

/// How the work is called.
const WORK: &str = r#"
# In the background, so that a signal is heard at once.
work() {
    "$dist/xtask" "$@" &
    child=$!
    wait "$child"
    status=$?
    child=
}
"#;

/// A validation, from the setup to the end.
const VALIDATE: &str = r#"
step=validate

# Which run is whole, and which can be gone on with; what is neither is put aside.
look() {
    whole=
    open=
    for run in "$task"/runs/*/; do
        [ -d "$run" ] || continue
        if [ -f "$run/manifest.json" ]; then
            whole=$run
        elif [ -f "$run/suite.toml" ] && [ -z "$open" ]; then
            open=$run
        else
            aside "$run"
        fi
    done
}

here
look
for _ in 1 2 3; do
    kept=$open
    if [ -n "$whole" ]; then
        work verify "$whole"
    elif [ -n "$open" ]; then
        work validate --resume "$open" --device "$device"
    else
        work validate "${gates[SLURM_ARRAY_TASK_ID / repeats]}" --device "$device" --out "$task/runs"
    fi
    case $status in
    0 | 1 | 3 | 4) break ;;
    esac
    # Without a verdict: the shared folder may have been away, and what is there is gone on with.
    here || break
    look
    # What was gone on with in vain is of another card than this one, for one: its parts do not go together.
    if [ -z "$away" ] && [ -n "$kept" ] && [ -n "$open" ]; then
        aside "$open"
        open=
    fi
done
exit "$status"
"#;

/// A worker of a search, from the setup to the end. What an earlier process of this task claimed is free once its name is gone.
const TAKE_PART: &str = r#"
step=search
here
rm -rf "$fleet/search/workers/${task##*/}".*
for try in 1 2 3; do
    worker=${task##*/}.$attempt.$try
    work fleet worker "$fleet" --name "$worker"
    rm -rf "$fleet/search/workers/$worker"
    case $status in
    0 | 1 | 3 | 4) break ;;
    esac
    # The shared folder may have been away for longer than it waits.
    here || break
done
exit "$status"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{FORMAT, Gate, Record};

    #[test]
    fn a_script_is_shell_whatever_the_names_are() {
        let gate = |name: &str, file: &str| Gate {
            name: name.into(),
            file: file.into(),
            suite: None,
            files: Default::default(),
        };
        let record = Record {
            format: FORMAT,
            begun: String::new(),
            source: Default::default(),
            dist: "dist/0123".into(),
            kinds: Vec::new(),
            gates: vec![gate("a", "gates/1/it's a gate.toml"), gate("b", "gates/2/$(x).toml")],
            repeats: 3,
            search: false,
        };
        let mut fleet = Fleet { path: "/shared/fleets/f".into(), record };
        let request = Request {
            kind: "l4".into(),
            device: "NVIDIA L4".into(),
            options: vec!["--gres=gpu:l4:1".into()],
            setup: vec!["module load cuda".into()],
        };
        let text = script(&fleet, &request);
        for wanted in [
            "#SBATCH --job-name=gate-f-l4\n",
            "#SBATCH --array=0-5\n",
            "#SBATCH --gres=gpu:l4:1\n",
            "#SBATCH --requeue\n",
            "dist='/shared/dist/0123'\n",
            r"gates=('/shared/gates/1/it'\''s a gate.toml' '/shared/gates/2/$(x).toml')",
            "device=gpu\n",
            "{\nmodule load cuda\n} || exit\n",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
        fleet.record.search = true;
        let searches = script(&fleet, &request);
        assert!(searches.contains("fleet worker \"$fleet\" --name") && !searches.contains("validate"), "{searches}");
        for text in [text, searches] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let checked = duct::cmd!("bash", "-n", file.path()).stderr_to_stdout().unchecked().read().unwrap();
            assert_eq!(checked, "");
        }
    }
}
