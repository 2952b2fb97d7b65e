"""Pictures of the results: time, peak memory and quality of every method, a row of panels a work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.methods import SCENES, WORKS
from benchmarks.report import (
    Found,
    Row,
    ours_of,
    quality_of,
    reads_of,
    rows_of,
    seconds_of,
    times_of,
)

OURS, PEER, STOPPED = "#0b6e4f", "#8d99ae", "#d5dae3"

LABELS = {
    "angle": "angle to the exact subspace (deg)",
    "truth": "worst component, angle to the truth (deg)",
    "excess": "excess of the objective (%)",
    "inertia": "excess of the inertia (%)",
}


def draw(found: Found, folder: Path) -> list[Path]:
    """Draw a picture a scene, and one of cost by size; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [_scene(found, scene, folder / f"{scene}.png") for scene in found["scenes"]]
    rows = [r for r in found["linear"].values() if "seconds" in r]
    if len(rows) > 1:
        made.append(_linear(rows, folder / "linear.png"))
    return [path for path in made if path is not None]


def _scene(found: Found, scene: str, path: Path) -> Path | None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    works = {w: _drawable(found, scene, w) for w in WORKS if w != "start"}
    alone = [r for rows in works.values() if len(rows) == 1 for r in rows]
    works = {w: rows for w, rows in works.items() if len(rows) > 1}
    if alone:
        works["alone"] = alone
    if not works:
        return None
    heights = [0.8 + 0.3 * len(rows) for rows in works.values()]
    figure, axes = plt.subplots(
        len(works),
        3,
        figsize=(13, sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for row_axes, (work, rows) in zip(axes, works.items(), strict=True):
        apart = work == "alone"
        names = [WORKS[r["work"]].title if apart else _name(r) for r in rows]
        colours = [_colour(r) for r in rows]
        seconds = [seconds_of(r)[0] for r in rows]
        text = [_time(r, found) for r in rows]
        _bars(row_axes[0], names, seconds, colours, text)
        memory = [r["peak_bytes"] / 1e9 for r in rows]
        _bars(row_axes[1], None, memory, colours, [f"{m:.2f} GB" for m in memory])
        _quality_bars(row_axes[2], "" if apart else WORKS[work].quality, rows, colours)
        title = "emcube alone" if apart else WORKS[work].title
        row_axes[0].set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes[-1][0].set_xlabel("time (s, logarithmic)")
    axes[-1][1].set_xlabel("peak memory (GB)")
    shape = " x ".join(map(str, found["scenes"][scene]["shape"]))
    figure.suptitle(
        f"{SCENES[scene].title}, {shape}: emcube green, peers grey, light where stopped (or not there yet)",
        fontsize=11,
    )
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path


def _drawable(found: Found, scene: str, work: str) -> list[Row]:
    return [r for r in rows_of(found, scene, work) if "seconds" in r and "peak_bytes" in r]


def _time(row: Row, found: Found) -> str:
    """Seconds, and in brackets the ratio to ours, or of ours to the bare read pass."""
    seconds, least = seconds_of(row)
    text = f"{'> ' if least else ''}{_short(seconds)} s"
    times = times_of(row, ours_of(found, row["scene"], row["work"]))
    if times is not None:
        return f"{text} ({'> ' if times[1] else ''}{_short(times[0])} x)"
    reads = reads_of(row, seconds)
    return text if reads is None else f"{text} ({_short(reads)} bare reads)"


def _name(row: Row) -> str:
    return str(row["title"]).replace("`", "").replace(", in memory", "")


def _colour(row: Row) -> str:
    return OURS if row["peer"] == "emcube" else STOPPED if seconds_of(row)[1] else PEER


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bars(
    axes: Any, names: list[str] | None, values: list[float], colours: list[str], text: list[str]
) -> None:
    places = list(range(len(values)))
    logarithmic = names is not None
    axes.barh(places, values, color=colours, log=logarithmic)
    axes.set_yticks(places, names if names is not None else [""] * len(places), fontsize=8)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.xaxis.set_minor_formatter("")
    axes.spines[["top", "right"]].set_visible(False)
    least, most = min(values), max(values)
    if logarithmic:
        axes.set_xlim(least / 3, most * 30)
    else:
        axes.set_xlim(0, most * 1.3 or 1.0)
    for place, value, words in zip(places, values, text, strict=True):
        axes.annotate(
            words, (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )


def _quality_bars(axes: Any, kind: str, rows: list[Row], colours: list[str]) -> None:
    if kind not in LABELS:
        axes.set_axis_off()
        return
    percent = kind in ("excess", "inertia")
    found = [quality_of(r) for r in rows]
    values = [0.0 if q is None else max(0.0, q * (100 if percent else 1)) for q in found]
    unit = " %" if percent else "°"
    text = [
        "stopped" if q is None else f"{v:.3g}{unit}" for q, v in zip(found, values, strict=True)
    ]
    _bars(axes, None, values, colours, text)
    if max(values) > 0 and percent:
        # One method far off must not hide the others.
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, max(6.0, max(values) * 6))
        axes.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
    elif max(values) == 0:
        axes.set_xlim(0, 1)
    axes.set_title(LABELS[kind], loc="left", fontsize=9)


def _linear(rows: list[Row], path: Path) -> Path:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    rows = sorted(rows, key=lambda r: r["pixels"])
    pixels, seconds = [r["pixels"] for r in rows], [r["seconds"] for r in rows]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.loglog(pixels, seconds, "o-", color=OURS, label="whole recipe")
    line = [seconds[-1] * p / pixels[-1] for p in pixels]
    axes.loglog(pixels, line, ":", color="black", label="in proportion")
    axes.set_xlabel("pixels")
    axes.set_ylabel("time (s)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path
