"""One analysis as a flat script, run as a user runs it, wherever ``EMCUBE_DEPLOY`` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# No ``if __name__ == "__main__"`` and no word of where it runs. What it prints names every bit.
SCRIPT = """\
import hashlib, json, sys
import numpy as np
import emcube as em
from emcube.deploy.deployment import in_force

folder = sys.argv[1]
with open(folder + "/started", "a") as file:
    file.write("once ")
rng = np.random.default_rng(0)
spectra = rng.dirichlet(np.ones(48), size=3)
counts = rng.poisson(rng.dirichlet([0.5] * 3, size=(24, 30)) * 200 @ spectra).astype(np.uint8)
cube = em.make_cube(
    counts,
    dims=("y", "x", "energy"),
    coords={"energy": 0.1 + 0.05 * np.arange(48)},
    units={"energy": "keV", "y": "nm", "x": "nm"},
    metadata={"modality": "EDS"},
)
cube = em.open(em.ingest(cube.chunk(y=6), folder + "/map.zarr"))
nmf = em.MiniBatchNMF(n_components=3, random_state=0).fit(cube)
result = em.run({
    "emcube": 1,
    "input": {"path": folder + "/map.zarr"},
    "steps": [{"pca": {"n_components": 4}}, {"kmeans": {"n_clusters": 3, "random_state": 0}}],
}, out=folder + "/result")
found = {
    "nmf": nmf.components_.values,
    "pca": result.tree["pca/components"].values,
    "scores": result.tree["pca/loadings"].values,
    "labels": result.tree["kmeans/labels"].values,
}
bits = {k: hashlib.sha256(np.ascontiguousarray(v)).hexdigest() for k, v in found.items()}
place = in_force()
print(json.dumps({"bits": bits, "kind": place.kind if place else None, "run_id": result.run_id}))
"""


def run_script(folder: Path, deploy: str | None, **environment: str) -> dict[str, Any]:
    """Run the script in an empty folder; what it printed, and that nothing else imported it."""
    folder.mkdir(parents=True)
    file = folder / "analysis.py"
    file.write_text(SCRIPT)
    env = {k: v for k, v in os.environ.items() if k != "EMCUBE_DEPLOY"} | environment
    if deploy is not None:
        env["EMCUBE_DEPLOY"] = deploy
    done = subprocess.run(
        [sys.executable, file.name, str(folder)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A worker that read the script again would have left its word too.
    assert (folder / "started").read_text() == "once "
    found: dict[str, Any] = json.loads(done.stdout)
    return found
