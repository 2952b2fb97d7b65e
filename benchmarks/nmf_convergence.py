"""How fast NMF of counts gets to its objective: ``python -m benchmarks.nmf_convergence STORE K``.

The bare likelihood (``volume=0``) from one start, by three ways to take steps: plain EM, over-relaxed EM
(Salakhutdinov and Roweis 2003) and quasi-Newton steps, which is what `emcube.MiniBatchNMF` takes. Written for
each pass: the share of D(K-1) - D(K), what the last component gains, that the deviance still lies above the
lowest one seen, and the seconds of all cores so far. Rows are resident, kernels warm.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emcube.engine.progress import listen
from emcube.kernels.poisson_nmf import floored
from emcube.models.nmf_losses import PoissonLoss

TARGET = 0.01
"""Share of the last component's gain at which the objective counts as reached."""


@dataclass(frozen=True)
class PlainEM(PoissonLoss):
    """Each pass makes one step of EM."""

    def ahead(self, components: Any, stepped: Any, length: Any, slope: Any, memory: Any) -> Any:
        """The plain step."""
        return stepped, 1.0


@dataclass(frozen=True)
class OverRelaxed(PoissonLoss):
    """Steps of EM, each longer than the last along the geodesic, as long as the objective falls."""

    def ahead(self, components: Any, stepped: Any, length: Any, slope: Any, memory: Any) -> Any:
        """The step to the power of its length."""
        length = min(8.0, 1.25 * length)
        factor = np.clip(floored(stepped) / floored(components), 1e-3, 1e3)
        return floored(floored(components) * factor**length), length


WAYS = {"plain EM": PlainEM(), "over-relaxed EM": OverRelaxed(), "quasi-Newton": PoissonLoss()}


def measure(store: Path, n_components: int, n_passes: int = 30) -> dict[str, Any]:
    """Excess of the deviance and seconds of all cores, pass by pass, for each way.

    Parameters
    ----------
    store : Path
        Of counts.
    n_components : int
        K, from 2 on.
    n_passes : int
        Of each way; the lowest deviance is that of three times as many quasi-Newton passes.
    """
    import emcube as em
    from emcube.engine import resident

    cube = em.open(store)
    bare: dict[str, Any] = {"volume": 0, "tol": 0, "random_state": 0}
    with resident():
        em.MiniBatchNMF(n_components, **{**bare, "max_iter": 1}).fit(cube)
        ways = {name: _passes(cube, n_components, loss, n_passes) for name, loss in WAYS.items()}
        best, fewer = (
            float(em.MiniBatchNMF(k, max_iter=3 * n_passes, **bare).fit(cube).objective_)
            for k in (n_components, n_components - 1)
        )
    lowest = min([best, *(min(way["objective"]) for way in ways.values())])
    for way in ways.values():
        way["excess"] = [(value - lowest) / (fewer - lowest) for value in way.pop("objective")]
        reached = [i + 1 for i, share in enumerate(way["excess"]) if share <= TARGET]
        way["passes_to_target"] = reached[0] if reached else None
    return {"n_components": n_components, "gain": fewer - lowest, "ways": ways}


def _passes(cube: Any, n_components: int, loss: PoissonLoss, n_passes: int) -> dict[str, Any]:
    """One fit whose passes take their steps as `loss` says; what they reached, and when."""
    import emcube as em

    seconds: list[float] = []
    objective: list[float] = []

    def note(event: Any) -> None:
        if event.kind == "round" and event.name == "NMF":
            seconds.append(round(time.process_time() - began, 3))
            objective.append(float(event.objective))

    class Fit(em.MiniBatchNMF):
        def _check_parameters(self) -> PoissonLoss:
            super()._check_parameters()
            return loss

    began = time.process_time()
    with listen(note):
        Fit(n_components, volume=0, tol=0, max_iter=n_passes, random_state=0).fit(cube)
    return {"objective": objective, "cpu_seconds": seconds}


def main(arguments: list[str] | None = None) -> None:
    """Print the table, or with ``--json`` all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("n_components", type=int)
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = measure(given.store, given.n_components, given.passes)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("| pass | " + " | ".join(f"{name}: excess %, cpu s" for name in found["ways"]) + " |")
    print("|---" * (len(found["ways"]) + 1) + "|")
    for i in range(given.passes):
        cells = [
            f"{100 * way['excess'][i]:.3f}, {way['cpu_seconds'][i]:.2f}"
            if i < len(way["excess"])
            else "done"
            for way in found["ways"].values()
        ]
        print(f"| {i + 1} | " + " | ".join(cells) + " |")
    for name, way in found["ways"].items():
        print(f"{name}: {way['passes_to_target']} passes to {TARGET:.0%}")


if __name__ == "__main__":
    main()
