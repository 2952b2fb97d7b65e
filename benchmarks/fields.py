"""Do fractions of phases by field say what they promise? Many specimens, with the truth known.

    python -m benchmarks.fields [--specimens 100] [--out benchmarks/results/fields.md]

Fields of two phases (thresholded noise of a known grain size) are drawn, measured with few counts, and
unmixed. Tables: the spread from field to field against what the fields' own tiles foretell, for grains of
several sizes; counting noise against that of measuring again; how often intervals of the mean hold the truth;
and how well the part of fields that differ is found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

import emcube as em

SIZE, CHANNELS = 64, 30
SPECTRA = np.random.default_rng(3).dirichlet(np.full(CHANNELS, 0.3), 2)


def place(rng: np.random.Generator, share: float, grain: float) -> NDArray[np.int32]:
    """Labels of one field; phase 0 covers `share` on average, and grains have some `grain` pixels."""
    margin = int(4 * grain)
    noise = gaussian_filter(rng.normal(size=(SIZE + 2 * margin,) * 2), grain)
    noise = noise[margin : margin + SIZE, margin : margin + SIZE]
    # The deviation of the law, not of this field: otherwise fields would be too much alike.
    deviation = 1.0 / (2.0 * np.sqrt(np.pi) * grain)
    return (noise > deviation * norm.ppf(share)).astype(np.int32)


def measured(labels: NDArray[np.int32], rng: np.random.Generator, counts: float) -> xr.DataArray:
    drawn = rng.poisson(counts * SPECTRA[labels]).astype(np.uint16)
    return em.make_cube(drawn, dims=("y", "x", "energy"), sig_dims=("energy",))


def as_labels(labels: NDArray[np.int32]) -> xr.DataArray:
    return xr.DataArray(labels, dims=("y", "x"))


def area(n: int, rng: np.random.Generator) -> Iterator[str]:
    """Spread of fields of one law, and what tiles foretell of it."""
    yield "| grain (pixels) | spread | by tiles | ratio |"
    yield "|---|---|---|---|"
    for grain in (0.7, 1.5, 3.0, 6.0, 10.0):
        fields = [as_labels(place(rng, 0.3, grain)) for _ in range(3 * n)]
        found = em.phase_fractions(fields)
        told = float(np.sqrt(np.square(found["fraction_std_area"][:, 0]).mean()))
        spread = float(found["spread"][0])
        yield f"| {grain:g} | {spread:.4f} | {told:.4f} | {told / spread:.2f} |"


def counting(n: int, rng: np.random.Generator) -> Iterator[str]:
    """Standard deviation of one place measured again, and what drawn counts say of it."""
    yield "| counts | by | measured again | counts drawn anew | ratio |"
    yield "|---|---|---|---|---|"
    labels = place(rng, 0.3, 2.0)[:32, :32]
    for counts in (5.0, 15.0, 50.0):
        again = [measured(labels, rng, counts) for _ in range(2 * n)]
        for word, model in (
            ("loadings", em.MiniBatchNMF(2, random_state=0)),
            ("labels", em.KMeans(2, random_state=0)),
            ("probabilities", em.PoissonMixture(2, random_state=0)),
        ):
            model.fit(again[:4])
            told = float(em.phase_fractions(model, again[:8])["fraction_std_counting"][:, 0].mean())
            seen = float(em.phase_fractions(model, again, n_draws=2)["fraction"][:, 0].std(ddof=1))
            ratio = f"{told / seen:.2f}" if seen > 1e-5 else "nothing to tell"
            yield f"| {counts:g} | {word} | {seen:.5f} | {told:.5f} | {ratio} |"


def intervals(n: int, rng: np.random.Generator) -> Iterator[str]:
    """How often intervals of the mean hold the truth, and what is found of fields that differ."""
    yield "| fields | their true deviation | held (90 % nominal) | found: fields differ | p < 0.05 |"
    yield "|---|---|---|---|---|"
    for n_fields in (4, 8, 16):
        for deviation in (0.0, 0.08):
            held, between, sure = 0, [], 0
            for _ in range(n):
                shares = np.clip(rng.normal(0.4, deviation, n_fields), 0.02, 0.98)
                fields = [as_labels(place(rng, p, 2.0)) for p in shares]
                found = em.phase_fractions(fields, level=0.9)
                low, high = found["mean_interval"].values[0]
                held += low <= 0.4 <= high
                between.append(float(found["share_fields"][0] * found["spread"][0] ** 2))
                sure += float(found["p_value"][0]) < 0.05
            yield (
                f"| {n_fields} | {deviation:g} | {100 * held / n:.0f} % | "
                f"{np.sqrt(np.mean(between)):.3f} | {100 * sure / n:.0f} % |"
            )


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--specimens", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261126)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    lines = ["# Fractions of phases by field, with the truth known", ""]
    lines += [
        f"`python -m benchmarks.fields --specimens {given.specimens} --seed {given.seed}`",
        "",
    ]
    for title, table in (
        ("Finite area: fields of one specimen, 64 x 64 pixels", area),
        ("Counting: one place of 32 x 32 pixels, measured again", counting),
        ("Intervals and fields that differ: 64 x 64 pixels, grains of 2", intervals),
    ):
        lines += [f"## {title}", "", *table(given.specimens, rng), ""]
    text = "\n".join(lines)
    sys.stdout.write(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
