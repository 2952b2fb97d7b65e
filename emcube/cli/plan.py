"""`emcube plan RECIPE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emcube.cli.collecting import loading
from emcube.cli.output import Json, Signal, emit_json, say

if TYPE_CHECKING:
    from emcube.recipe.passes import Range
    from emcube.recipe.planning import PassPlan, Plan, StepPlan


def plan(
    what: Annotated[
        str,
        typer.Argument(
            help="A recipe (YAML), or a cube for the default recipe: instrument file, store, "
            "catalog.yaml:entry or URL."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Where the result will go.")] = None,
    name: Signal = None,
    n_components: Annotated[
        int | None,
        typer.Option("--n-components", min=1, help="Components of the default recipe."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: threads of one process.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process.")] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory of each process, such as 4GiB.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--measure", help="Measure this machine's speed anew (some seconds).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what a run will do, need and take, before it reads anything but headers."""
    with loading():
        from emcube.recipe.calibration import calibrate
        from emcube.recipe.planning import plan as plan_recipe

    say("measuring this machine, where that was not done before ...")
    rates = calibrate(again=again)
    found = plan_recipe(
        what,
        out=out,
        name=name,
        n_components=n_components,
        workers=workers,
        threads=threads,
        memory=memory,
        calibration=rates,
    )
    if as_json:
        emit_json(found.as_dict())
    else:
        typer.echo(text(found))
    found.require()


def text(found: Plan) -> str:
    """Write a plan for people."""
    lines = [*_head(found), ""]
    for step in found.steps:
        lines += _step(step, moved=found.machine.deployment == "workers")
    lines += ["", *_whole(found)]
    for problem in found.problems:
        word = "does not fit" if problem.refused else "note"
        lines += [f"{word}: {problem.what}", f"  -> {problem.hint}"]
    lines += [f"({note})" for note in found.notes]
    return "\n".join(lines)


def _head(found: Plan) -> list[str]:
    from emcube.engine import format_bytes

    cube = found.cube
    shape = ", ".join(f"{d} {n}" for d, n in cube["dims"].items())
    stored = cube["stored_bytes"]
    return [
        f"cube       {shape}: {cube['pixels']:,} pixels of {cube['channels']:,} channels, {cube['dtype']}",
        f"blocks     {cube['blocks']:,} of {format_bytes(cube['block_bytes'])}, in "
        f"{cube['groups']:,} task{'' if cube['groups'] == 1 else 's'} a pass at most; "
        f"{format_bytes(cube['decoded_bytes'])} decoded"
        + ("" if stored is None else f", {format_bytes(stored)} in files"),
        f"in memory  {_bytes(cube['kept_bytes']['low'], cube['kept_bytes']['high'])} where all blocks stay",
        f"assumed    {found.machine.words}",
    ]


def _step(step: StepPlan, *, moved: bool) -> list[str]:
    title = step.name if step.verb in (step.name, "read") else f"{step.name} ({step.verb})"
    lines = [f"{title:<42}{_time(step.seconds)}"]
    for one in step.passes:
        lines.append(f"    {_pass(one, moved=moved)}")
        lines += [f"    {' ' * 26}{one.decides}"] if one.decides else []
    if step.output.high:
        files = _number(step.files.low, step.files.high)
        lines.append(f"    writes {_bytes(step.output.low, step.output.high)} in {files} files")
    lines += [f"    {note}" for note in step.notes]
    return lines


def _pass(one: PassPlan, *, moved: bool) -> str:
    from emcube.engine import format_bytes

    n = _number(*one.passes)
    times = f"{n} {'pass' if n == '1' else 'passes'} of {one.blocks:,} blocks"
    if one.decides:
        most = "no fixed limit" if one.most < 0 else f"at most {one.most:,}"
        times += f" ({most})"
    parts = [
        times,
        f"reads {_bytes(one.read.low, one.read.high)}" if one.read.high else "reads nothing",
    ]
    if moved:
        parts.append(f"moves {_bytes(one.moved.low, one.moved.high)}")
    parts.append(f"memory {format_bytes(one.memory)}")
    return f"{one.name:<24}  " + "; ".join(parts)


def _whole(found: Plan) -> list[str]:
    from emcube.engine import format_bytes

    workers = found.machine.deployment == "workers"
    each = "each worker" if workers else "the process"
    passes = found.passes
    stays = [p for s in found.steps for p in s.passes if p.over == "the cube"]
    lines = [
        f"passes     {_number(passes.low, passes.high)}",
        f"memory     up to {format_bytes(found.memory)} in {each}"
        + (f", {format_bytes(found.client)} in the client" if workers else ""),
    ]
    if stays:
        low, high = stays[-1].resident_blocks.low, stays[-1].resident_blocks.high
        n = found.machine.workers
        lines.append(
            f"resident   {_number(int(low / n), int(high / n))} blocks of the cube in {each} "
            f"({format_bytes(found.machine.resident)} is kept for blocks)"
        )
    if workers:
        lines.append(f"moved      {_bytes(found.moved.low, found.moved.high)} between processes")
    files = _number(found.files.low, found.files.high)
    lines += [
        f"result     {_bytes(found.output.low, found.output.high)} in {files} files",
        f"time       {_time(found.seconds)}, of these {_time(found.start)} before the first block",
    ]
    return lines


def _bytes(low: float, high: float) -> str:
    from emcube.engine import format_bytes

    first, last = format_bytes(low), format_bytes(high)
    return first if first == last else f"{first} to {last}"


def _number(low: float, high: float) -> str:
    low, high = round(low), round(high)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _time(seconds: Range) -> str:
    return f"{_short(seconds.low)} to {_short(seconds.high)}"


def _short(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
