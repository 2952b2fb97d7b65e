"""The job script of a whole run: text that a person can read, change and submit again by hand."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from emcube.deploy.slurm.options import SlurmOptions

__all__ = ["CHECKPOINTED", "RunOfRecipe", "job_script"]

CHECKPOINTED = (75, 138, 143)
"""Exit statuses of a run that goes on when it is started again: it wrote a checkpoint when it was asked to
leave (75), or the signal came before it listened (128 and the signal's number).
"""

_SCRIPT = """\
#!/bin/bash
# {title}
# Written by `emcube submit`. It can be read, changed and submitted again: sbatch {file}
{directives}

{setup}set -u
recipe={recipe}
out={out}
logs={logs}
patterns="${{logs//%/%%}}"      # the same for srun, to which % has a meaning
python={python}
interface={interface}      # network interface between the nodes; empty: the main one
workers={workers}      # worker processes on each node; empty: one for four processors
requeues={requeues}     # how often a run that was stopped in time is queued again

alive() {{ kill -0 "$1" 2>/dev/null; }}
say() {{ echo "emcube job $SLURM_JOB_ID, $(date '+%F %T'): $*"; }}

# Slurm warns before the time limit (USR1) and before it takes the nodes away (TERM): the run then writes
# what it has and ends, and the job is queued again.
stopped=
client=
stop() {{
    say "signal $1: the run is asked to write a checkpoint"
    stopped=$1
    if [[ -n $client ]]; then kill -s "$1" "$client"; fi
}}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

# Processors and nodes of this job; one folder for its scheduler file and its TLS key, for us alone.
cpus=${{SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
restarts=${{SLURM_RESTART_COUNT:-0}}
run="$logs/.run-$SLURM_JOB_ID"
rm -rf "$run"      # of a start before this one, if the job was queued again
mkdir -p "$logs"
mkdir -m 700 "$run" || exit 1
finish() {{ rm -rf "$run"; echo "$1" >"$logs/exit-$SLURM_JOB_ID"; exit "$1"; }}
rm -f "$logs/exit-$SLURM_JOB_ID"
say "start $((restarts + 1)) on $SLURM_JOB_NUM_NODES node(s): $SLURM_JOB_NODELIST, $cpus processors each"

"$python" -P -c 'import sys, pathlib; from emcube.deploy.tls import make_credentials
make_credentials(pathlib.Path(sys.argv[1]))' "$run/tls" || finish 1

# Parts of a job share its nodes, all of them in the background: exec, so that signals reach srun itself.
# A lost worker does not end the others, nor does a lost node the job.
step() {{
    exec srun --overlap --mem=0 --cpus-per-task="$cpus" --open-mode=append --kill-on-bad-exit=0 --wait=0 "$@"
}}

step --nodes=1 --ntasks=1 --nodelist="$first" \\
    --output="$patterns/scheduler-%j.log" \\
    "$python" -P -m emcube.deploy.slurm.node scheduler --folder "$run" --interface "$interface" \\
    2>>"$logs/srun-$SLURM_JOB_ID.log" &
scheduler=$!

step --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \\
    --output="$patterns/workers-%j-%n.log" \\
    "$python" -P -m emcube.deploy.slurm.node worker --folder "$run" --interface "$interface" \\
    ${{workers:+--workers "$workers"}} 2>>"$logs/srun-$SLURM_JOB_ID.log" &
pool=$!

# The scheduler's file appears when it listens.
for _ in $(seq 300); do
    [[ -s "$run/scheduler.json" ]] && break
    alive "$scheduler" || break
    sleep 1 &
    wait $!
done
[[ -s "$run/scheduler.json" ]] || {{
    say "the scheduler did not start: see $logs/scheduler-$SLURM_JOB_ID.log"
    tail -n 5 "$logs/srun-$SLURM_JOB_ID.log" "$logs/scheduler-$SLURM_JOB_ID.log"
    finish 1
}}
place="\\"$run/scheduler.json\\" workers=$SLURM_JOB_NUM_NODES timeout=300"
EMCUBE_PROGRESS="$logs/progress.json" \\
step --nodes=1 --ntasks=1 --nodelist="$first" --unbuffered \\
    "$python" -P -m emcube run "$recipe" --out "$out" --deploy "$place"{overwrite} &
client=$!
if [[ -n $stopped ]]; then kill -s "$stopped" "$client"; fi

lost=
while alive "$client"; do
    sleep 1 &
    wait $!      # a signal ends the waiting, not the sleep
    alive "$scheduler" || {{ say "the scheduler has ended: see $logs/scheduler-$SLURM_JOB_ID.log"; break; }}
    alive "$pool" || {{ say "all workers have ended: see $logs/workers-$SLURM_JOB_ID-*.log"; break; }}
done
# Without scheduler or workers the client ends by itself, or is told to.
for _ in $(seq 60); do
    alive "$client" || break
    sleep 1 &
    wait $!
done
trap '' USR1 TERM
if alive "$client"; then
    lost=1
    kill -s TERM "$client"
fi
wait "$client"
status=$?
[[ -n $lost ]] && status=1
{{ kill -s TERM "$pool"; wait "$pool"; kill -s TERM "$scheduler"; wait "$scheduler"; }} 2>/dev/null

case $status in
    {checkpointed})
        # Somebody who cancels a job does not want it back: Slurm no longer calls it running.
        state=$(squeue --noheader --job "$SLURM_JOB_ID" --format=%T)
        if [[ -n $stopped && $state == RUNNING && $restarts -lt $requeues ]]; then
            say "checkpoint written, queued again ($((restarts + 1)) of at most $requeues times)"
            rm -rf "$run"
            scontrol requeue "$SLURM_JOB_ID" && sleep 60
            finish "$status"
        elif [[ -n $stopped && $state == RUNNING ]]; then
            say "checkpoint written, but the job was queued again $restarts times already:" \\
                "submit it again to go on, with a longer --time"
        fi
        ;;
esac
say "ended with status $status"
finish "$status"
"""


@dataclass(frozen=True)
class RunOfRecipe:
    """A run that is to become a job.

    Attributes
    ----------
    recipe : Path
        Absolute.
    out : Path
        Folder of the result; absolute, on a file system that all nodes see.
    overwrite : bool
        Replace another run's result there.
    """

    recipe: Path
    out: Path
    overwrite: bool = False

    @property
    def logs(self) -> Path:
        """Folder beside the result for script, logs and progress."""
        return self.out.with_name(f"{self.out.name}.logs")

    @property
    def script(self) -> Path:
        """The job script."""
        return self.logs / "job.sh"

    @property
    def progress(self) -> Path:
        """File in which the run tells how far it is."""
        return self.logs / "progress.json"

    def log(self, job: int) -> Path:
        """What the job and the client print."""
        return self.logs / f"job-{job}.log"

    def exit_file(self, job: int) -> Path:
        """Written last by the job script: its exit status."""
        return self.logs / f"exit-{job}"


def one_line(text: str) -> str:
    """Text for a comment, which must not go on in a line of its own."""
    return "".join(c if c.isprintable() else "?" for c in text)


def job_script(run: RunOfRecipe, options: SlurmOptions, python: str) -> str:
    """Write the script of one job: scheduler, workers and client in one allocation.

    Parameters
    ----------
    run : RunOfRecipe
    options : SlurmOptions
    python : str
        Python of the job, where the options name none.

    Returns
    -------
    str
        For sbatch; it depends on nothing but the arguments.
    """
    patterns = str(run.logs).replace("%", "%%")
    directives = [
        *options.directives(name=f"emcube-{run.out.name}"[:64], output=f"{patterns}/job-%j.log"),
        f"--signal=B:USR1@{options.warning}",
        "--requeue",
        "--no-kill",
    ]
    setup = "".join(f"{line}\n" for line in options.setup)
    return _SCRIPT.format(
        title=f"emcube: {one_line(run.recipe.name)} on {options.nodes} node(s)",
        file=shlex.quote(str(run.script)),
        directives="\n".join(f"#SBATCH {line}" for line in directives),
        recipe=shlex.quote(str(run.recipe)),
        out=shlex.quote(str(run.out)),
        logs=shlex.quote(str(run.logs)),
        python=shlex.quote(options.python or python),
        interface=options.interface or "",
        workers=options.workers_per_node or "",
        requeues=options.requeues,
        setup=f"# Of the profile\n{setup}\n" if setup else "",
        overwrite=" --overwrite" if run.overwrite else "",
        checkpointed=" | ".join(map(str, CHECKPOINTED)),
    )
