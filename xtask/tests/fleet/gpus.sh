#!/bin/bash
# What only GPUs can answer: how long a search takes by one worker and by one for each GPU of this machine, beside `tune` on the
# same GPUs, and whom each finds. Needs no Slurm: stand-ins run a job's tasks right here, the task n with the GPU n alone.
#
#   gpus.sh PROGRAM OUT [OPTIONS OF tune...]     PROGRAM is the xtask of a dist folder; OUT keeps the runs; e.g. --budget 32
set -euo pipefail
program=$(realpath "${1:?"usage: gpus.sh PROGRAM OUT [OPTIONS OF tune...]"}")
mkdir -p "${2:?"usage: gpus.sh PROGRAM OUT [OPTIONS OF tune...]"}"
out=$(realpath "$2")
shift 2
mkdir -p "$out/bin" "$out/shared"
cd "$out"

cat >bin/sbatch <<'SBATCH'
#!/bin/bash
[ "$1" = --version ] && exit
for script; do :; done
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
for task in $(seq 0 "$last"); do
    : >"queue-$task"
    (SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=$task SLURMD_NODENAME=here CUDA_VISIBLE_DEVICES=$task \
        bash "$script" >"log-$(basename "$(dirname "$script")")-$task" 2>&1; rm "queue-$task") </dev/null >/dev/null 2>&1 &
done
echo 1
SBATCH
cat >bin/squeue <<'SQUEUE'
#!/bin/bash
for file in queue-*; do [ -e "$file" ] && echo "1|${file#queue-}|RUNNING|here|"; done; true
SQUEUE
chmod +x bin/sbatch bin/squeue
export PATH=$out/bin:$PATH

name=${GPU_NAME:-$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)}
count=${GPU_COUNT:-$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)}
cat >fleet.toml <<TOML
shared = "shared"
setup = ["export CARGO_TARGET_DIR='${CARGO_TARGET_DIR:-$out/target}'"]
[kinds.here]
device = "$name"
gres = "gpu:1"
TOML

said() {
    echo "$1: $(($(date +%s%N) / 1000000 - $2)) ms; $(grep -E '^(winner|DEFERRED|INCONCLUSIVE)' "$3" | head -1)"
}

by_workers() {
    local begun fleet
    begun=$(($(date +%s%N) / 1000000))
    fleet=$("$program" fleet tune stage5 --on here --workers "$1" "${@:2}" | sed -n 's/^fleet: //p')
    while compgen -G 'queue-*' >/dev/null; do sleep 0.1; done
    "$program" fleet report "$fleet" >"report-$1" || true
    said "fleet tune, $1 workers" "$begun" "report-$1"
}

by_tune() {
    local begun
    begun=$(($(date +%s%N) / 1000000))
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$out/target} "$program" tune stage5 --gpus "$1" --out runs "${@:2}" >"tune-$1" || true
    said "tune, $1 GPUs" "$begun" "tune-$1"
}

# The first builds what all of them find in the cache.
by_tune "$count" "$@"
for gpus in 1 "$count" "$count" 1; do
    by_tune "$gpus" "$@"
    by_workers "$gpus" "$@"
done
