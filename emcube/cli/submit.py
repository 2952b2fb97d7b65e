"""`emcube submit RECIPE`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emcube.cli.output import Json, emit_json, progress

if TYPE_CHECKING:
    from emcube.deploy.slurm import Job, Queue
    from emcube.submit import Submission


def submit(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    nodes: Annotated[int | None, typer.Option(min=1, help="Nodes; default: 1.")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time limit: minutes, 2:30:00, 1-12:00:00 or 2h; default: 1 hour."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory of each node, such as 64GiB; default: what the site gives."),
    ] = None,
    cpus_per_node: Annotated[
        int | None,
        typer.Option(min=1, help="Processors of each node; default: whole nodes (--exclusive)."),
    ] = None,
    workers_per_node: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes a node; default: one for four processors."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition (queue).")] = None,
    account: Annotated[str | None, typer.Option(help="Account that is charged.")] = None,
    qos: Annotated[str | None, typer.Option(help="Quality of service.")] = None,
    interface: Annotated[
        str | None, typer.Option(help="Network between the nodes, such as ib0; default: the main.")
    ] = None,
    requeues: Annotated[
        int | None,
        typer.Option(
            min=0, help="How often a run that is stopped in time is queued again; default: 10."
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="Further option of sbatch, such as --sbatch=--constraint=skylake."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Profile of the kind slurm; options given here go before.")
    ] = None,
    job_name: Annotated[
        str | None, typer.Option(help="Name of the job; default: from the result's folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the result goes; default: the recipe's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another run's result.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the job script; write and submit nothing.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Show progress until the job ends; end with its status."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a recipe as one Slurm job, on as many nodes as wanted; logs go to a folder beside the result."""
    from emcube.submit import prepare_submission, slurm_options

    options = slurm_options(
        profile,
        {
            "nodes": nodes,
            "time": time,
            "memory": memory,
            "cpus_per_node": cpus_per_node,
            "workers_per_node": workers_per_node,
            "partition": partition,
            "account": account,
            "qos": qos,
            "interface": interface,
            "requeues": requeues,
            "sbatch": sbatch or None,
            "job_name": job_name,
        },
    )
    submission = prepare_submission(recipe, options, out=out, overwrite=overwrite)
    if dry_run:
        _show_script(submission, as_json=as_json)
        return
    if submission.finished:
        _say_finished(submission, as_json=as_json)
        return
    _submit(submission, wait=follow, as_json=as_json)


def _submit(submission: Submission, *, wait: bool, as_json: bool) -> None:
    from emcube.deploy.slurm import Queue

    queue = Queue()
    active = submission.active_job(queue) if wait else None
    if active is not None and submission.is_of(active):
        number = active.number
        _tell(f"{active}, submitted before, is followed")
    else:
        number = submission.submit(queue)
    card = _card(submission, number)
    if not as_json:
        typer.echo(_render(card))
    if not wait:
        if as_json:
            emit_json(card)
        return
    job = _follow(submission, queue, number)
    if as_json:
        emit_json({**card, "state": job.state, "status": job.status, "restarts": job.restarts})
    if job.status != 0 or job.state != "COMPLETED":
        raise typer.Exit(_say_failed(submission, job))


def _follow(submission: Submission, queue: Queue, number: int) -> Job:
    from emcube.engine.progress import emit
    from emcube.submit import follow

    try:
        with progress():
            return follow(queue, number, submission.run, tell=_tell, show=emit)
    except KeyboardInterrupt:
        _tell(
            f"no longer following; job {number} goes on. Follow it again with the same command, "
            f"cancel it with: scancel {number}"
        )
        raise typer.Exit(130) from None


def _say_failed(submission: Submission, job: Job) -> int:
    """Say how a job failed; return this command's exit status."""
    from emcube.submit import last_words

    log = submission.run.log(job.number)
    _tell(f"{job}, exit status {job.status}; the end of {str(log)!r}:\n{last_words(log)}")
    # 1, 2 and 3 mean for a job what they mean here; whatever ended it otherwise, the run has failed.
    return job.status if job.status in (1, 2, 3) else 1


def _card(submission: Submission, number: int) -> dict[str, Any]:
    run = submission.run
    return {
        "job": number,
        "submitted": True,
        "run_id": submission.run_id,
        "result": str(run.out),
        "script": str(run.script),
        "log": str(run.log(number)),
        "logs": str(run.logs),
        "progress": str(run.progress),
    }


def _render(card: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"Job      {card['job']}",
            f"Result   {card['result']}",
            f"Script   {card['script']}",
            f"Log      {card['log']}",
            "",
            "Follow   the same command with --follow",
            f"Cancel   scancel {card['job']}",
        ]
    )


def _show_script(submission: Submission, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(submission.script.rstrip("\n"))
        return
    emit_json(
        {
            "submitted": False,
            "run_id": submission.run_id,
            "result": str(submission.run.out),
            "finished": submission.finished,
            "script": submission.script,
        }
    )


def _say_finished(submission: Submission, *, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "submitted": False,
                "run_id": submission.run_id,
                "result": str(submission.run.out),
                "finished": True,
            }
        )
    else:
        typer.echo(f"{submission.run.out} holds this run already, complete: nothing to submit")


def _tell(text: str) -> None:
    print(f"emcube: {text}", file=sys.stderr, flush=True)
