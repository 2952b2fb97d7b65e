#!/usr/bin/env bash
# A real Slurm on this one machine, for tests and for trying `emcube submit` without a cluster.
#
#   tests/slurm/start-slurm.sh             start it (nothing happens where it runs already)
#   tests/slurm/start-slurm.sh status      show its nodes and jobs
#   tests/slurm/start-slurm.sh stop        cancel its jobs, stop its daemons, remove its folder
#   tests/slurm/start-slurm.sh install     install Debian's slurm-wlm and munge where they are missing
#
# Afterwards Slurm's commands find it by one variable, which `start` prints:
#
#   eval "$(tests/slurm/start-slurm.sh)"   sets SLURM_CONF
#   sbatch --wrap hostname; squeue
#
# Two nodes of one machine (emcube1, emcube2), each with its own slurmd. They promise more processors
# and memory than there may be, so that allocations of two nodes start on a small machine: a place to try
# things out, not to measure them. No systemd is needed. As root the daemons run as root (munged as user
# munge); as another user everything runs as that user, and only that user's jobs can run. Everything
# listens on this machine only (127.0.0.1) and lies in one folder:
#
#   EMCUBE_SLURM_STATE   the folder (default: emcube-slurm-USER in TMPDIR or /tmp); logs are in it
#   EMCUBE_SLURM_PORT    first of three ports (default: 16817)
set -euo pipefail

state="${EMCUBE_SLURM_STATE:-${TMPDIR:-/tmp}/emcube-slurm-$(id -un)}"
port="${EMCUBE_SLURM_PORT:-16817}"
PATH="$PATH:/usr/sbin:/sbin"
export SLURM_CONF="$state/slurm.conf"

fail() {
    echo "start-slurm.sh: $*" >&2
    exit 1
}

installed() {
    for command in munged slurmctld slurmd sbatch srun scontrol; do
        command -v "$command" >/dev/null || return 1
    done
}

install() {
    installed && return 0
    local as_root=()
    command -v apt-get >/dev/null \
        || fail "Slurm is not installed and there is no apt-get: install slurmctld, slurmd, sbatch, srun and munged"
    if [[ "$(id -u)" != 0 ]]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null \
            || fail "Slurm is not installed, and neither root nor sudo without a password is at hand:" \
                "run 'apt-get install slurm-wlm munge' as root first"
        as_root=(sudo -n)
    fi
    echo "installing slurm-wlm and munge" >&2
    {
        "${as_root[@]}" apt-get update -qq \
            && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends slurm-wlm munge
    } >&2 || fail "apt-get could not install slurm-wlm and munge; its messages are above"
    installed || fail "slurm-wlm and munge are installed, but not all of their commands are found"
}

# Munge may run as nobody who could not own its key: as root, the packages' own user.
as_munge() {
    if [[ "$(id -u)" == 0 ]] && id munge >/dev/null 2>&1; then
        runuser -u munge -- "$@"
    else
        "$@"
    fi
}

answers() {
    [[ -f "$SLURM_CONF" ]] && timeout 20 scontrol ping 2>/dev/null | grep -q "is UP"
}

ready() {
    # Both nodes can take jobs: neither down, nor unknown, nor waiting for their slurmd ("*").
    [[ "$(timeout 20 sinfo --noheader --Node --format='%t' 2>/dev/null | grep -cE '^(idle|mix|alloc|comp)$')" == 2 ]]
}

wait_for() {
    local what="$1" log="$2"
    shift 2
    for _ in $(seq 300); do
        "$@" && return 0
        sleep 0.2
    done
    echo "start-slurm.sh: $what does not come up within a minute; the end of $log:" >&2
    tail -n 20 "$log" >&2 || true
    exit 1
}

configure() {
    local host user
    host="$(hostname -s)"
    user="$(id -un)"
    mkdir -p "$state"
    [[ -O "$state" ]] || fail "$state belongs to somebody else: name another folder in EMCUBE_SLURM_STATE"
    chmod 755 "$state"
    mkdir -p "$state"/{munge,ctld,spool-emcube1,spool-emcube2}
    head -c 128 /dev/urandom >"$state/munge/munge.key"
    chmod 600 "$state/munge/munge.key"
    chmod 711 "$state/munge"
    if [[ "$(id -u)" == 0 ]] && id munge >/dev/null 2>&1; then
        chown -R munge: "$state/munge"
    fi
    cat >"$SLURM_CONF.new" <<CONF
# Written by tests/slurm/start-slurm.sh
ClusterName=emcube
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$state/munge/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool-%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd-%n.log
# No cgroups, no accounting database, no switch: what a container has.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# The nodes promise what is written below, whatever the machine has.
SlurmdParameters=config_overrides
# A test waits for a queue: look at it often, and let a requeued job start again soon.
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,requeue_setup_env_fail
JobRequeue=1
KillWait=10
# A finished job is still shown for ten minutes.
MinJobAge=600
ReturnToService=2
SlurmdTimeout=300
NodeName=emcube1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=8 RealMemory=16000 State=UNKNOWN
NodeName=emcube2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=emcube1,emcube2 Default=YES MaxTime=INFINITE DefMemPerNode=2000 State=UP
CONF
    mv "$SLURM_CONF.new" "$SLURM_CONF"
}

start() {
    installed || fail "Slurm is not installed: 'tests/slurm/start-slurm.sh install', or" \
        "'apt-get install slurm-wlm munge' as root"
    mkdir -p "$(dirname "$state")"
    # Two at a time would start two clusters in one folder.
    exec 9>"$state.lock"
    flock -w 120 9 || fail "another start-slurm.sh holds $state.lock for two minutes"
    if ! { answers && ready; }; then
        stop
        configure
        # Daemons must not inherit the lock.
        as_munge munged --key-file="$state/munge/munge.key" --socket="$state/munge/munge.socket" \
            --pid-file="$state/munge/munged.pid" --log-file="$state/munge/munged.log" \
            --seed-file="$state/munge/munged.seed" 9>&- >&2
        wait_for munged "$state/munge/munged.log" test -S "$state/munge/munge.socket"
        slurmctld -f "$SLURM_CONF" 9>&- >&2
        wait_for slurmctld "$state/slurmctld.log" answers
        for node in emcube1 emcube2; do
            slurmd -f "$SLURM_CONF" -N "$node" 9>&- >&2
        done
        wait_for slurmd "$state/slurmd-emcube1.log" ready
    fi
    echo "export SLURM_CONF='$SLURM_CONF'"
}

# End one daemon by the number in its file, if that number is still this daemon's.
end() {
    local name="$1" file="$2" pid
    [[ -f "$file" ]] || return 0
    pid="$(cat "$file")"
    [[ "$(cat "/proc/$pid/comm" 2>/dev/null)" == "$name"* ]] || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop() {
    [[ -d "$state" ]] || return 0
    [[ -f "$SLURM_CONF" ]] || fail "$state is not a folder of this script's: it holds no slurm.conf"
    if answers; then
        timeout 20 squeue --noheader --format=%A 2>/dev/null | xargs -r scancel --signal=KILL --full 2>/dev/null || true
        timeout 20 squeue --noheader --format=%A 2>/dev/null | xargs -r scancel 2>/dev/null || true
    fi
    end slurmd "$state/slurmd-emcube1.pid"
    end slurmd "$state/slurmd-emcube2.pid"
    end slurmctld "$state/slurmctld.pid"
    end munged "$state/munge/munged.pid"
    rm -rf "$state"
}

case "${1:-start}" in
    install) install ;;
    start) start ;;
    stop) stop ;;
    status)
        answers || fail "no Slurm of this script's runs (looked in $state)"
        sinfo
        squeue
        ;;
    *)
        sed -n 's/^#   //p' "$0" >&2
        exit 2
        ;;
esac
