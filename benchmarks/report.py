"""What was measured, for people: tables in Markdown, and whether the targets hold."""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.methods import BY_KEY, METHODS, SCENES, WORKS, key

RESULTS = Path(__file__).parent / "results" / "full.json"
"""The committed results, from which the README's table is written."""

Found = dict[str, Any]
Row = dict[str, Any]

QUALITY = {
    # work's quality: key in the judge's answer, how it is written, and what is as good as none
    "angle": ("subspace_deg", "angle", 0.01),
    "truth": ("truth_deg", "angle", 0.1),
    "excess": ("excess", "percent", 0.01),
    "inertia": ("inertia_excess", "percent", 0.01),
}


# -- figures ------------------------------------------------------------------------------------------


def row_of(found: Found, scene: str, name: str) -> Row | None:
    """A method's row, where it was measured and gave a time."""
    row: Row | None = found["methods"].get(f"{scene}/{name}")
    return row if row and "seconds" in row else None


def ours_of(found: Found, scene: str, work: str) -> Row | None:
    """Our row of a work."""
    rows = (row_of(found, scene, key(m)) for m in METHODS if m.ours and m.work == work)
    return next((row for row in rows if row), None)


def seconds_of(row: Row) -> tuple[float, bool]:
    """Seconds that a method took, and whether that is only the least: it was stopped, or never got there."""
    quality = row.get("quality") or {}
    if row["work"] == "nmf-race" and row["peer"] != "emcube":
        if "seconds_to_target" in quality:
            return float(quality["seconds_to_target"]), False
        return float(quality.get("seconds_judged", row["seconds"])), True
    return float(row["seconds"]), bool(row.get("killed"))


def fit_seconds(row: Row) -> float:
    """Seconds until the model is fitted, without its labels or loadings where they were timed apart."""
    return float((row.get("lap_seconds") or {}).get("fit", row["seconds"]))


def reads_of(row: Row, seconds: float | None = None) -> float | None:
    """Time of the fit in bare read passes, which were measured before, between and after the runs."""
    bare = row.get("bare_reads")
    if not bare:
        return None
    return (fit_seconds(row) if seconds is None else seconds) / statistics.median(bare)


def times_of(row: Row, mine: Row | None) -> tuple[float, bool] | None:
    """How many times as long as ours, and whether that is only the least."""
    if mine is None or row is mine or row.get("peer") == "emcube":
        return None
    seconds, least = seconds_of(row)
    return seconds / max(mine["seconds"], 1e-9), least


def quality_of(row: Row) -> float | None:
    """The figure by which answers of this work are compared: the less the better."""
    kind = QUALITY.get(WORKS[row["work"]].quality)
    return (row.get("quality") or {}).get(kind[0]) if kind else None


# -- targets ------------------------------------------------------------------------------------------


def checks(found: Found) -> list[dict[str, Any]]:
    """What must hold, and whether it does; the verdict is None where a figure is missing."""
    return [
        *_pca_checks(found),
        *_nmf_checks(found),
        *_kmeans_checks(found),
        *_whole_checks(found),
        *_extra_checks(found),
        *_peer_checks(found),
    ]


def _check(
    what: str,
    value: float | None,
    *,
    most: float | None = None,
    least: float | None = None,
    unit: str = "",
    note: str = "",
) -> dict[str, Any]:
    holds = None
    if value is not None:
        holds = value <= most if most is not None else value >= (least or 0.0)
    target = f"at most {most:g}{unit}" if most is not None else f"at least {least:g}{unit}"
    return {"what": what, "value": value, "unit": unit, "target": target, "holds": holds} | (
        {"note": note} if note else {}
    )


def _title(scene: str) -> str:
    return SCENES[scene].title


def _faster(
    found: Found,
    scene: str,
    work: str,
    names: tuple[str, ...],
    least: float,
    *,
    worst: float = math.inf,
) -> Row:
    """So many times faster than the fastest of a peer's variants whose quality is no worse than `worst`."""
    mine = ours_of(found, scene, work)
    rows = [row for name in names if (row := row_of(found, scene, name))]
    good = [row for row in rows if (quality := quality_of(row)) is None or quality <= worst]
    ratios = [(*times, row["title"]) for row in good if (times := times_of(row, mine))]
    # Of variants that were all stopped, the least that is known counts.
    value, stopped, title = min(ratios, default=(None, False, BY_KEY[names[0]].title))
    what = f"{_title(scene)}, {WORKS[work].title}: faster than {title}"
    note = "or more: it was stopped, or had not got there" if stopped else ""
    return _check(what, value, least=least, unit=" times", note=note)


def _reads(found: Found, scene: str, work: str, most: float) -> Row:
    mine = ours_of(found, scene, work)
    value = reads_of(mine) if mine else None
    return _check(f"{_title(scene)}, {WORKS[work].title}", value, most=most, unit=" bare reads")


def _pca_checks(found: Found) -> list[Row]:
    covariance = ("sklearn-pca-covariance", "sklearn-pca-covariance-sparse")
    pca, count, both, scores = (
        ours_of(found, "jadeite", work) for work in ("pca", "count", "count-and-pca", "pca-scores")
    )
    ratio = count["seconds"] / pca["seconds"] if pca and count else None
    together = (
        both["seconds"] / (count["seconds"] + scores["seconds"])
        if both and count and scores
        else None
    )
    return [
        _faster(found, "jadeite", "pca", covariance, 4),
        _faster(found, "jadeite", "pca", ("sklearn-pca-incremental",), 50),
        _faster(found, "jadeite", "pca-scores", ("hyperspy-lazy-svd-incremental",), 50),
        _reads(found, "srm2135c", "pca", 2),
        _check("jadeite map, number of components", ratio, most=1.5, unit=" times PCA alone"),
        _check(
            "jadeite map, number and PCA in one recipe (one read serves both)",
            together,
            most=1.0,
            unit=" of both alone",
            note="with the result written, which the others do not do",
        ),
        _reads(found, "srm2135c", "count", 3),
    ]


def _excess_check(found: Found, scene: str, work: str) -> Row:
    mine = ours_of(found, scene, work)
    value = quality_of(mine) if mine else None
    percent = None if value is None else 100 * value
    return _check(f"{_title(scene)}, {WORKS[work].title}: excess", percent, most=1, unit=" %")


def _nmf_checks(found: Found) -> list[Row]:
    minibatch = ("sklearn-minibatch-nmf", "sklearn-minibatch-nmf-sparse")
    return [
        _faster(found, "jadeite", "nmf-race", ("sklearn-nmf", "sklearn-nmf-sparse"), 20),
        _faster(found, "jadeite", "nmf-race", minibatch, 1),
        _excess_check(found, "jadeite", "nmf-race"),
        _excess_check(found, "srm2135c", "nmf-race"),
        _reads(found, "srm2135c", "nmf-race", 6),
    ]


def _kmeans_checks(found: Found) -> list[Row]:
    plain = ("sklearn-kmeans", "sklearn-kmeans-sparse")
    profiles = tuple(f"sklearn-kmeans-profiles{name}" for name in ("", "-sparse", "-restarts"))
    works = ("kmeans-counts", "kmeans-profiles")
    return [
        _faster(found, "jadeite", "kmeans-counts", plain, 20),
        _faster(found, "jadeite", "kmeans-counts", ("dask-ml-kmeans",), 50),
        # An answer whose inertia is more than a percent too large is none.
        _faster(found, "jadeite", "kmeans-profiles", profiles, 20, worst=0.01),
        *(_excess_check(found, scene, work) for scene in SCENES for work in works),
        *(_reads(found, "srm2135c", work, 4) for work in works),
    ]


def _whole_checks(found: Found) -> list[Row]:
    made = [_reads(found, "srm2135c", "whole", 12)]
    for scene, most in (("jadeite", 1.0), ("srm2135c", 1.5)):
        row = ours_of(found, scene, "whole")
        value = row["peak_bytes"] / 1e9 if row else None
        made.append(_check(f"{_title(scene)}, whole recipe: memory", value, most=most, unit=" GB"))
    start = ours_of(found, "jadeite", "start") or ours_of(found, "srm2135c", "start")
    value = start["seconds"] if start else None
    made.append(_check("Command line, a run on a tiny cube", value, most=4, unit=" s"))
    linear = {name: row["seconds"] for name, row in found["linear"].items() if "seconds" in row}
    value = linear["10"] / linear["1"] if {"1", "10"} <= set(linear) else None
    made.append(_check("Whole recipe, ten times the pixels", value, most=11, unit=" times as long"))
    return made


def _extra_checks(found: Found) -> list[Row]:
    """Stores of events, dense cubes, and a cube beyond memory."""
    made = []
    for work in ("pca", "whole"):
        dense = ours_of(found, "srm2135c", work)
        events = row_of(found, "srm2135c", f"emcube-{work}-events")
        value = dense["seconds"] / events["seconds"] if dense and events else None
        what = f"{_title('srm2135c')}, {WORKS[work].title}: faster from a store of events"
        made.append(_check(what, value, least=2, unit=" times"))
    dense = found["extras"].get("dense") or {}
    stem = [
        row["angle_deg"]
        for name, row in dense.items()
        if name.startswith("4D-STEM") and "scikit" not in name and "angle_deg" in row
    ]
    what = "4D-STEM, randomised PCA: angle to the exact one"
    made.append(_check(what, max(stem, default=None), most=0.5, unit=" degrees"))
    beyond = found["extras"].get("beyond_memory") or {}
    off = abs(beyond["projected_over_peak"] - 1.0) if "projected_over_peak" in beyond else None
    what = "Beyond memory: projected memory off the largest one"
    percent = None if off is None else 100.0 * off
    made.append(_check(what, percent, most=20, unit=" %"))
    return made


def _peer_checks(found: Found) -> list[Row]:
    """Every peer is beaten in time and in memory at equal or better quality."""
    made = []
    for row in found["methods"].values():
        mine = ours_of(found, row["scene"], row["work"])
        if row["peer"] == "emcube" or "seconds" not in row or mine is None:
            continue
        seconds, _ = seconds_of(row)
        lost = [] if seconds > mine["seconds"] else ["time"]
        lost += [] if row["peak_bytes"] > mine["peak_bytes"] else ["memory"]
        theirs, own = quality_of(row), quality_of(mine)
        if theirs is not None and own is not None:
            enough = QUALITY[WORKS[row["work"]].quality][2]
            lost += [] if own <= max(theirs, enough) else ["quality"]
        if lost:
            made.append((f"{_title(row['scene'])}, {row['title']}", lost))
    text = "; ".join(f"{title} ({', '.join(lost)})" for title, lost in made)
    known = any(r["peer"] != "emcube" and "seconds" in r for r in found["methods"].values())
    what = "Peers that are not beaten in time, memory and quality"
    check = _check(what, float(len(made)) if known else None, most=0)
    return [check | {"named": text}]


# -- tables -------------------------------------------------------------------------------------------

README_WORKS = ("pca", "pca-scores", "nmf-race", "nmf", "kmeans-counts")
"""Works with peers in the README; of the others our own figures."""


def readme(found: Found) -> str:
    """Write the README's table: works with peers on the first scene, and our own figures on the others."""
    lines = [
        "| | method | time | peak memory | error |",
        "|---|---|---:|---:|---:|",
    ]
    first = next(iter(found["scenes"]), "jadeite")
    for work in README_WORKS:
        for row in rows_of(found, first, work):
            if "seconds" not in row and "failed" not in row:
                continue
            mine = ours_of(found, first, work)
            name = WORKS[work].title if row is mine else ""
            cells = [name, row["title"], *_cells(row, mine, short=True)]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _conditions(found, first), ""]
    lines += _own(found)
    return "\n".join(lines).rstrip()


def _own(found: Found) -> list[str]:
    """Our own figures in bare read passes, a column a scene."""
    scenes = list(found["scenes"])
    if not scenes:
        return []
    lines = [
        "| emcube alone: time, bare read passes, peak memory | "
        + " | ".join(_title(s) for s in scenes)
        + " |",
        "|---|" + "---:|" * len(scenes),
    ]
    for work in WORKS.values():
        cells = []
        for scene in scenes:
            mine = ours_of(found, scene, work.name)
            cells.append("" if mine is None else _own_cell(mine))
        if any(cells):
            lines.append(f"| {work.title} | {' | '.join(cells)} |")
    return lines


def _own_cell(row: Row) -> str:
    text = f"{row['seconds']:.2f} s"
    reads = reads_of(row, row["seconds"])
    if reads is not None:
        text += f", {reads:.1f}"
    if "peak_bytes" in row:
        text += f", {row['peak_bytes'] / 1e9:.2f} GB"
    return text


def rows_of(found: Found, scene: str, work: str) -> list[Row]:
    """Rows of a work, ours first."""
    names = [key(m) for m in METHODS if m.work == work]
    rows = (found["methods"].get(f"{scene}/{name}") for name in names)
    return [row for row in rows if row]


def _cells(row: Row, mine: Row | None, short: bool = False) -> list[str]:
    """Time, CPU time (in the long table), memory, quality, bare reads (in the long table)."""
    if "seconds" not in row:
        return [row.get("failed", "not measured"), *([""] * (2 if short else 4))]
    seconds, least = seconds_of(row)
    more = "over " if least else ""
    time = f"{more}{seconds:.1f} s" if seconds >= 10 else f"{more}{seconds:.2f} s"
    times = times_of(row, mine)
    if times is not None:
        time += f" ({'over ' if times[1] else ''}{times[0]:.1f} x)"
    elif not short and len(row.get("runs", ())) > 1:
        time += f" ({row['spread'][0]:.2f} to {row['spread'][1]:.2f})"
    memory = f"{row['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in row else ""
    if short:
        return [time, memory, _quality(row)]
    cpu = row.get("cpu_seconds")
    reads = reads_of(row, seconds)
    return [
        time,
        "" if cpu is None else f"{cpu:.1f} s",
        memory,
        _quality(row),
        "" if reads is None else f"{more}{reads:.1f}",
    ]


def _quality(row: Row) -> str:
    kind = QUALITY.get(WORKS[row["work"]].quality)
    if kind is None:
        return str(row["n_components"]) if "n_components" in row else ""
    value = quality_of(row)
    if value is None:
        return "stopped" if row.get("killed") else ""
    return _degrees(value) if kind[1] == "angle" else _percent(value)


def _degrees(angle: float) -> str:
    return "< 0.01°" if angle < 0.01 else f"{angle:.2f}°" if angle < 1 else f"{angle:.1f}°"


def _percent(share: float) -> str:
    percent = 100 * share
    if percent <= 0.005:
        return "0 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.0f} %"


def _conditions(found: Found, scene: str) -> str:
    """Say in a line what was measured on what."""
    about, where = found["scenes"][scene], found["machine"]
    shape = " x ".join(map(str, about["shape"]))
    loads = [x for x in found["load"] if x is not None]
    busy = f", load {min(loads):g} to {max(loads):g}" if loads else ""
    memory = "" if where["memory_GiB"] is None else f", {where['memory_GiB']:.0f} GiB"
    pure = about.get("pure_pixels")
    pure_text = f"; {pure:.0%} of the pixels pure, for each phase" if pure else ""
    return (
        f"Simulated {_title(scene)} {shape} ({about['counts_per_pixel']:.0f} counts a pixel, "
        f"{about['dense_bytes'] / 1e6:.0f} MB as {about['dtype']}{pure_text}), "
        f"{found['started'][:10]}; {found['options']['threads']} threads on {where['cores']} cores of "
        f"{where['processor']}{memory}, {where['system']}{busy}. "
        f"Python {where['python']}, {_versions(found)}."
    )


def _versions(found: Found) -> str:
    """Versions of each package that stands in the table."""
    first = {"emcube": "emcube", "sklearn": "scikit-learn", "dask-ml": "dask-ml"}
    first |= {"hyperspy": "hyperspy", "espm": "espm"}
    known: dict[str, str] = {}
    for row in found["methods"].values():
        name = first[row["peer"]]
        if name in row.get("versions", {}):
            known[name] = row["versions"][name]
            if row["peer"] == "emcube":
                known |= {n: row["versions"][n] for n in ("numpy", "numba", "dask", "zarr")}
    return ", ".join(f"{name} {number}" for name, number in known.items())


def full(found: Found) -> str:
    """Write everything as Markdown."""
    lines = ["# Side by side", ""]
    for scene in found["scenes"]:
        lines += [f"## {_title(scene)}", "", _conditions(found, scene), ""]
        for work in WORKS:
            rows = rows_of(found, scene, work)
            if not rows or work == "start":
                continue
            lines += [f"### {WORKS[work].title}", ""]
            lines += [
                "| method | time | CPU time | peak memory | quality | bare reads |",
                "|---|---:|---:|---:|---:|---:|",
            ]
            mine = ours_of(found, scene, work)
            lines += [f"| {r['title']} | {' | '.join(_cells(r, mine))} |" for r in rows]
            lines += ["", *_notes(rows), ""]
    lines += [*_start_table(found), *_linear_table(found), *_checks_table(found)]
    lines += [*_extras_text(found), *_how(found), *_elsewhere(found)]
    return "\n".join(lines).rstrip() + "\n"


def _notes(rows: list[Row]) -> list[str]:
    notes = []
    for row in rows:
        if "settings" in row:
            text = f"- {row['title']}: `{' '.join(row['settings'].split())}`"
            laps = row.get("lap_seconds") or {}
            if "fit" in laps and laps["fit"] < row["seconds"]:
                text += (
                    f"; the fit alone {laps['fit']:.2f} s, {reads_of(row) or 0.0:.1f} bare reads"
                )
            notes.append(text)
    return notes


def _start_table(found: Found) -> list[str]:
    start = next((r for r in found["methods"].values() if r["work"] == "start"), None)
    if start is None or "medians" not in start:
        return []
    lines = ["## Starting up", "", "| fresh process | time |", "|---|---:|"]
    lines += [f"| {name} | {seconds:.2f} s |" for name, seconds in start["medians"].items()]
    return [*lines, ""]


def _linear_table(found: Found) -> list[str]:
    rows = [r for r in found["linear"].values() if "seconds" in r]
    if not rows:
        return []
    lines = [
        "## Cost by size: the whole recipe on the tilt series",
        "",
        "| pixels | time | microseconds a pixel | peak memory | bare reads |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda r: r["pixels"]):
        each = 1e6 * row["seconds"] / row["pixels"]
        reads = reads_of(row)
        lines.append(
            f"| {row['pixels']:,} | {row['seconds']:.2f} s ({row['spread'][0]:.2f} to "
            f"{row['spread'][1]:.2f}) | {each:.2f} | {row['peak_bytes'] / 1e9:.2f} GB | "
            f"{'' if reads is None else f'{reads:.1f}'} |"
        )
    return [*lines, ""]


def _checks_table(found: Found) -> list[str]:
    lines = [
        "## Targets",
        "",
        "Set for the scenes at full size on two cores"
        + ("." if _full_size(found) else "; these are smaller, so that they say little."),
        "",
        "| what | target | measured | holds |",
        "|---|---:|---:|---|",
    ]
    for check in checks(found):
        value = check["value"]
        text = "" if value is None else f"{value:.3g}{check['unit']}"
        note = f" ({check['note']})" if check.get("note") else ""
        holds = {True: "yes", False: "**no**", None: "not measured"}[check["holds"]]
        lines.append(f"| {check['what']}{note} | {check['target']} | {text} | {holds} |")
    named = "; ".join(check["named"] for check in checks(found) if check.get("named"))
    return [*lines, "", *([f"Not beaten: {named}.", ""] if named else [])]


def _full_size(found: Found) -> bool:
    return all(about["scale"] == 1.0 for about in found["scenes"].values())


def _extras_text(found: Found) -> list[str]:
    """Results of other modules: as they write them themselves (``markdown(found)``), or plainly."""
    lines = []
    for name, row in found["extras"].items():
        lines += [f"## {name.replace('_', ' ').capitalize()}", ""]
        known = importlib.util.find_spec(f"benchmarks.{name}") is not None
        module = importlib.import_module(f"benchmarks.{name}") if known else None
        if hasattr(module, "markdown") and "failed" not in row:
            lines += str(module.markdown(row)).splitlines()
        else:
            lines += [f"- {label}: {_plain(value)}" for label, value in row.items()]
        lines.append("")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(v)}" for name, v in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value)
    return str(value)


def _when(found: Found) -> str:
    """First and last time at which a row was measured."""
    times = sorted(row["measured"] for row in found["methods"].values() if "measured" in row)
    return f"from {times[0]} to {times[-1]}" if times else "at no known time"


def _elsewhere(found: Found) -> list[str]:
    """Say what was measured on another kind of processor than the rest, and when."""
    here = found["machine"]["processor"]
    sections = [("Cost by size", row) for row in found["linear"].values()]
    sections += [(f"{n.replace('_', ' ').capitalize()}", row) for n, row in found["extras"].items()]
    others = {
        title: f"{title}: {row['measured'][:10]}, {row['processor']}"
        for title, row in sections
        if row.get("processor", here) != here
    }
    if not others:
        return []
    return [f"- Measured elsewhere, and with the code of that day: {'; '.join(others.values())}."]


def _how(found: Found) -> list[str]:
    options = found["options"]
    how = f"""
        ## How it was measured

        - Every method runs in a process of its own, one after the other on one machine; the peers in
          environments of their own (`benchmarks/requirements-*.txt`). Imports, compilation and a first run on
          a small cube are not timed (starting up has a table of its own).
        - Ours is the median of {options["repeat"]} runs, with the least and the most; a peer is run again (as
          often at most) until its runs took {options["enough"]:.0f} s together. A peer is stopped when it has
          lost by its target (10 times, where no other is set) to what emcube took then, and took
          {options["patience"]:.0f} s: its figure is then marked *over*.
        - Rows are measured one by one, and some of them again later: those here {_when(found)};
          `full.json` has the time of each.
        - emcube starts from its store on disk, HyperSpy's lazy methods from their .zspy; for methods in
          memory reading, conversion to single precision and weighting are not timed, in their favour, and
          minibatch methods get shuffled pixels.
        - Peak memory is the largest resident memory of the process (VmHWM). *x* is the ratio to emcube. A
          bare read is a pass of zarr-python over the same store on as many threads that does nothing with the
          values; it is measured before and after each method, and between our runs.
        - Quality: *angle*, the largest principal angle between the subspace found and the exact one (double
          precision), of as many dimensions as there are phases; a method that subtracts the mean is held to
          the exact answer of that problem, which has one dimension less. Of NMF's components, the angle of
          the worst one to the true one. *Excess* of the race: how far the objective, at the best loadings
          for the components, lies over the lowest that is known, as a share of what the last component
          gains. Of k-means: the inertia over the lowest that is known, as a share of that between the
          clusters.
        """
    return textwrap.dedent(how).splitlines()
