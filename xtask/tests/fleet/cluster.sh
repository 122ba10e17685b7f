#!/bin/bash
# A Slurm cluster on this machine that can be thrown away: munge, slurmctld and one slurmd for each emulated kind of device,
# all as the current user, on free ports, with every file under one folder. Nothing of the system's own Slurm is touched.
#
#   cluster.sh up FOLDER     starts it; FOLDER/slurm.conf is what SLURM_CONF must name
#   cluster.sh down FOLDER   ends every job and daemon of it; succeeds where nothing of it is left
#
# Exit status 3 where the packages are missing.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# Kinds of device, one node each, and how many cards a node claims to have.
kinds=(l4 a100 h100)
cards=2

lacking() {
    for program in munged munge slurmctld slurmd scontrol sinfo; do
        command -v "$program" >/dev/null || { echo "no $program here; apt-get install slurm-wlm munge"; return 0; }
    done
    return 1
}

# A port that nothing listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

configure() {
    local host user
    host=$(hostname) user=$(id -un)
    mkdir -p "$folder"/{state,log,munge,spool}
    chmod 755 "$folder" "$folder/munge"
    [ -f "$folder/munge/key" ] || (umask 077 && dd if=/dev/urandom bs=128 count=1 2>/dev/null >"$folder/munge/key")
    cat >"$folder/slurm.conf" <<CONF
ClusterName=fleet
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=${SLURMD_TIMEOUT:-20}
KillWait=3
MinJobAge=${MIN_JOB_AGE:-4}
InactiveLimit=0
Waittime=0
CONF
    : >"$folder/gres.conf"
    for kind in "${kinds[@]}"; do
        echo "NodeName=node-$kind NodeHostname=$host NodeAddr=127.0.0.1 Port=$(free_port) CPUs=4 RealMemory=1000" \
            "Feature=$kind Gres=gpu:$kind:$cards State=UNKNOWN" >>"$folder/slurm.conf"
        # Slurm wants a file for every card; without cgroups nobody opens it.
        mkdir -p "$folder/cards"
        for card in $(seq 0 $((cards - 1))); do
            : >"$folder/cards/$kind$card"
        done
        echo "NodeName=node-$kind Name=gpu Type=$kind File=$folder/cards/$kind[0-$((cards - 1))]" >>"$folder/gres.conf"
    done
    cat >>"$folder/slurm.conf" <<CONF
PartitionName=low Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 State=UP
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF State=UP
CONF
}

up() {
    if why=$(lacking); then
        echo "DEFERRED: $why" >&2
        exit 3
    fi
    configure
    export SLURM_CONF=$folder/slurm.conf
    munged --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" --num-threads=2
    slurmctld -f "$SLURM_CONF" -c
    for kind in "${kinds[@]}"; do
        slurmd -f "$SLURM_CONF" -N "node-$kind"
    done
    for _ in $(seq 100); do
        if [ "$(sinfo --noheader --Node --partition=low --states=idle --format=%N 2>/dev/null | wc -l)" = "${#kinds[@]}" ]; then
            exit 0
        fi
        sleep 0.2
    done
    echo "the nodes did not come up; see $folder/log" >&2
    down
    exit 1
}

# Ends the process that a file names, and waits until it is gone.
end() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

down() {
    export SLURM_CONF=$folder/slurm.conf
    [ -f "$SLURM_CONF" ] || return 0
    if kill -0 "$(cat "$folder/slurmctld.pid" 2>/dev/null)" 2>/dev/null; then
        scancel --partition=low,high 2>/dev/null || true
        for _ in $(seq 50); do
            [ -n "$(squeue --noheader 2>/dev/null)" ] || break
            sleep 0.2
        done
    fi
    # Each takes seconds to go: all are told before one is waited for.
    local daemons=("${kinds[@]/#/$folder/slurmd-node-}")
    daemons=("${daemons[@]/%/.pid}" "$folder/slurmctld.pid")
    for daemon in "${daemons[@]}"; do
        kill "$(cat "$daemon" 2>/dev/null)" 2>/dev/null || true
    done
    for daemon in "${daemons[@]}"; do
        end "$daemon"
    done
    end "$folder/munge/pid"
}

folder=${2:?"usage: cluster.sh up|down FOLDER"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
case ${1:-} in
up) up ;;
down) down ;;
*) echo "usage: cluster.sh up|down FOLDER" >&2; exit 2 ;;
esac
