"""The demo: simulate one of the talk's two examples, ingest it, unmix it, draw it, compare with the truth.

Nothing here is special: the same calls, a recipe among them, work on a file from an instrument.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emcube.errors import IncompleteError, InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from emcube.results import Result
    from emcube.scenes import Scene

__all__ = ["SCENES", "recipe_text", "render", "run_demo"]

RECIPE = """\
# A whole analysis. `emcube run recipe.yaml --out ANOTHER_FOLDER` does it again.
emcube: 1
input: {{path: {entry}.zarr}}
steps:
  - estimate_n_components: {{method: biwhitening}}
  - pca: {{n_components: 20, noise: poisson}}
  - nmf: {{n_components: auto, random_state: {seed}}}
{more}output: result
"""


@dataclass(frozen=True)
class Example:
    """What differs between the demo's scenes.

    Attributes
    ----------
    lines : tuple of str
        X-ray lines to map.
    more : str
        Further steps of the recipe.
    catalog : str
        What the catalog says of the store, as lines of YAML.
    specimen : str
        In a few words, for the terminal.
    denoised : int or None
        Components of the PCA that denoises; None for as many as are found.
    note : str
        For the terminal.
    """

    lines: tuple[str, ...]
    more: str
    catalog: str
    specimen: str
    denoised: int | None = None
    note: str = ""


SCENES = {
    "srm2135c": Example(
        lines=("Ni_Ka", "Cr_Ka", "Si_Ka"),
        more="""\
  # One cluster more than components: the vacuum.
  - kmeans: {{n_clusters: 4, on: nmf, random_state: {seed}}}
""",
        catalog="""\
      title: Simulated tilt series of a Ni/Cr multilayer needle (after SRM 2135c)
      modality: EDS
      elements: [Ni, Cr, Si, C, Cu]
      beam_energy_keV: 200.0
      specimen: nine alternating discs of Ni and Cr, 56 nm each, on Si
      dims: [tilt, y, x, energy]
""",
        specimen="tilt series",
    ),
    "jadeite": Example(
        lines=("Na_Ka", "Mg_Ka", "Al_Ka", "Si_Ka", "Ca_Ka", "Fe_Ka", "O_Ka", "C_Ka"),
        more="""\
  # As many as the talk took for its map.
  - nmf: {{name: nmf_four, n_components: 4, random_state: {seed}}}
  - kmeans: {{n_clusters: 5, on: nmf, random_state: {seed}}}
""",
        catalog="""\
      title: Simulated SEM-EDS map of jadeite with augite, aegirine and silica
      modality: EDS
      elements: [Na, Mg, Al, Si, Ca, Fe, O, C]
      beam_energy_keV: 30.0
      specimen: polished section of a jadeite rock in epoxy
      dims: [y, x, energy]
""",
        specimen="map",
        denoised=4,
        note="nmf_four has four, as the talk's map; its residuals show what is amiss",
    ),
}
"""Examples by the name of their scene in `emcube.scenes`."""

CATALOG = """\
# An Intake 2 catalog of what `emcube demo` wrote beside it. Plain Intake reads it:
#     intake.open_catalog("catalog.yaml")["@entry@"].read()
version: 2
metadata:
  title: Demo of emcube
aliases:
  @entry@: @entry@
data:
  @entry@-data:
    datatype: intake.readers.datatypes:Zarr
    kwargs:
      url: '{CATALOG_DIR}/@entry@.zarr'
      root: ''
      storage_options: null
    metadata: {}
    user_parameters: {}
entries:
  @entry@:
    reader: intake.readers.readers:XArrayDatasetReader
    kwargs:
      args: ['{data(@entry@-data)}']
    metadata:
@metadata@      sig_dims: [energy]
      dtype: uint8
      units: counts
      license: BSD-3-Clause
      get: run `emcube demo --scene @entry@`, which simulates it
    output_instance: xarray:Dataset
    user_parameters: {}
user_parameters: {}
"""


def recipe_text(scene: str = "srm2135c", seed: int = 0) -> str:
    """Recipe of a scene of the demo, whose store lies beside it, as YAML.

    Parameters
    ----------
    scene : str
        One of `SCENES`.
    seed : int
        Of its steps.
    """
    more = SCENES[scene].more.format(seed=int(seed))
    return RECIPE.format(entry=scene, seed=int(seed), more=more)


def run_demo(
    out: str | Path | None = None,
    *,
    scene: str = "srm2135c",
    scale: float = 0.1,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Simulate one of the talk's examples, ingest it, unmix it and draw pictures.

    Parameters
    ----------
    out : path-like, optional
        Folder for everything; made where it is missing. What an earlier demo left there is replaced, or
        kept where it is the same. Default ``demo``, or ``demo-jadeite`` for that scene.
    scene : {"srm2135c", "jadeite"}
        The tilt series of a Ni/Cr multilayer needle, or the map of a jadeite rock.
    scale : float
        Share of the talk's number of pixels (see `emcube.scenes`); 1 is the talk's 73 x 124 x 165 x 900,
        or 384 x 512 x 1564.
    seed : int
        Of the simulation and of the analysis.
    say : callable, optional
        Told in a line what comes next.

    Returns
    -------
    dict
        Where things are (``store``, ``truth``, ``recipe``, ``result``, ``report``, ``pictures``,
        ``catalog``), what was
        found (``n_components``, ``angles_deg`` to the true components) and ``seconds`` by part.

    Raises
    ------
    InputError
        `scene`, `scale` or `seed` is not usable, or `out` is a file.
    StoreError
        `out` cannot be written, or holds something else under a name that the demo needs.
    """
    from emcube import scenes
    from emcube.recipe import Recipe, run
    from emcube.report.build import report, report_target

    if scene not in SCENES:
        raise InputError(
            f"the demo's scene: got {scene!r}, expected one of {', '.join(SCENES)}",
            hint="emcube demo --scene jadeite",
        )
    example = SCENES[scene]
    default = "demo" if scene == "srm2135c" else f"demo-{scene}"
    folder = Path(default if out is None else out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(
            f"the demo's folder: {str(folder)!r} is a file", hint="name a folder: --out demo"
        )
    report_target(folder / "report.html", folder / "result", overwrite=False)
    tell = say or (lambda text: None)
    clock = _Clock()
    simulated = getattr(scenes, scene)(scale=scale, random_state=seed)
    folder.mkdir(parents=True, exist_ok=True)
    size = " x ".join(str(n) for n in simulated.cube.shape)
    tell(f"1/4  Simulating a {example.specimen} of {size} and writing it to a store")
    store = folder / f"{scene}.zarr"
    written = _ingest(simulated, store)
    truth = _write_truth(simulated, folder / "truth.zarr")
    if not written:
        tell("     (kept: the store holds this very simulation already)")
    clock.lap("simulate and ingest")

    tell("2/4  Number of components, PCA, NMF, k-means")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe_text(scene, seed), encoding="utf-8")
    result = run(Recipe.read(recipe), overwrite=True)
    clock.lap("analyse")

    tell("3/4  Drawing, and writing the report")
    pictures = _draw(result, store, example, folder / "pictures")
    page = report(result, folder / "report.html")
    clock.lap("draw")

    tell("4/4  Comparing with the truth")
    catalog = _catalog(folder, scene)
    angles = _angles(result, simulated)
    clock.lap("compare")
    estimate = result[result.step_of("estimate_n_components")]
    return {
        "scene": scene,
        "shape": dict(zip(map(str, simulated.cube.dims), simulated.cube.shape, strict=True)),
        "store": str(store),
        "truth": str(truth),
        "recipe": str(recipe),
        "result": str(folder / "result"),
        "run_id": result.run_id,
        "pictures": [str(p) for p in pictures],
        "report": str(page),
        "catalog": str(catalog),
        "entry": f"{catalog}:{scene}",
        "n_components": estimate.attrs["n_components"],
        "n_components_true": simulated.n_components,
        "angles_deg": angles,
        "seconds": clock.laps,
    }


def render(report: dict[str, Any]) -> str:
    """Write what `run_demo` returned for people: what was found, and where everything is."""
    shape = " x ".join(f"{dim} {n}" for dim, n in report["shape"].items())
    folder = Path(report["pictures"][0]).parent
    names = ", ".join(Path(p).name for p in report["pictures"])
    angles = ", ".join(f"{name} {angle:.1f}°" for name, angle in report["angles_deg"].items())
    example = SCENES[report["scene"]]
    spent = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in report["seconds"].items())
    return "\n".join(
        [
            f"{f'Simulated {example.specimen}':24}{shape}",
            f"Components found        {report['n_components']} (put in: {report['n_components_true']})",
            *([f"{'':24}{example.note}"] if example.note else []),
            f"Angle to the truth      {angles}",
            f"Time                    {spent}",
            "",
            f"Cube store   {report['store']}",
            f"Truth        {report['truth']}",
            f"Result       {report['result']}",
            f"Recipe       {report['recipe']}",
            f"Catalog      {report['catalog']}",
            f"Report       {report['report']}: open it in a browser",
            f"Pictures     {folder}: {names}",
            "",
            "Go on in Python:",
            "    import emcube as em",
            f'    cube = em.open("{report["entry"]}")',
            f'    result = em.open_result("{report["result"]}")',
        ]
    )


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 2)
        self._last = now


def _ingest(scene: Scene, store: Path) -> bool:
    """Write the scene's cube unless the store holds it already; tell whether it was written."""
    from emcube.store import is_store, open_cube, write_cube

    if is_store(store):
        try:
            kept = open_cube(store)
        except IncompleteError:
            pass  # goes on where it stopped, or is replaced
        else:
            if (
                kept.shape == scene.cube.shape
                and kept.attrs.get("metadata") == scene.cube.attrs["metadata"]
            ):
                return False
    write_cube(scene.cube, store, overwrite=True)
    return True


def _write_truth(scene: Scene, path: Path) -> Path:
    """Write components and loadings of the scene as one plain Zarr group."""
    import xarray as xr

    truth = xr.Dataset(
        {"components": scene.components, "loadings": scene.loadings.astype("float32")}
    )
    # Strings of fixed length have no place in the Zarr v3 specification.
    truth = truth.assign_coords(component=truth["component"].astype(object))
    # One view a chunk would be many small files at full size.
    sizes = scene.loadings.sizes
    chunks = {}
    if "tilt" in sizes:
        chunks["tilt"] = max(1, min(sizes["tilt"], 2**21 // (sizes["y"] * sizes["x"])))
    truth = truth.chunk(chunks).assign_attrs(
        title="True components and loadings of the simulated cube",
        n_components=scene.n_components,
        why=scene.why,
    )
    for variable in truth.variables.values():
        variable.encoding.pop("chunks", None)
    with warnings.catch_warnings():
        # Consolidated metadata are how xarray opens a group without a warning; that zarr calls them an
        # extension of version 3 is for readers to know, not for the user of a demo.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        truth.to_zarr(path, mode="w", zarr_format=3, consolidated=True)
    return path


def _draw(result: Result, store: Path, example: Example, folder: Path) -> list[Path]:
    """Draw what went in, raw, and what came out."""
    import emcube.cube  # noqa: F401  (registers .em)
    from emcube import plot
    from emcube.store import open_cube

    cube = open_cube(store)
    estimate = result.step_of("estimate_n_components")
    number = result[estimate].attrs["n_components"]
    raw = _views(cube).em.lines(list(example.lines))
    n_denoised = min(example.denoised or number or 20, result["pca"].sizes["component"])
    denoised = _views(result.lines(example.lines, "pca", n_denoised))
    figures: dict[str, Figure] = {
        "raw-overview": cube.em.plot(),
        # Net counts of an empty pixel scatter about zero: the half below it is noise only.
        "raw-line-maps": plot.line_maps(raw.clip(min=0).compute()),
        "estimate-scree": result.plot_scree(estimate),
        "pca-scree": result.plot_scree("pca"),
        "pca-denoised": plot.raw_and_denoised(
            raw, denoised, by="line", names=("raw", f"PCA, n = {n_denoised}"), max_frames=5
        ),
    }
    for step in result.steps:
        if result.verb(step) == "nmf":
            figures |= _unmixed(result, step, cube)
    figures["kmeans-labels"] = plot.label_map(_views(result["kmeans"]["labels"]))
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for name, figure in figures.items():
        saved.append(folder / f"{name}.png")
        figure.savefig(saved[-1])
    return saved


def _unmixed(result: Result, step: str, cube: xr.DataArray) -> dict[str, Figure]:
    """Figures of one NMF: components, loadings, all loadings in one image, what is left."""
    from emcube import plot

    nmf = result[step]
    names = _telling_lines(nmf["components"], cube)
    loadings = _views(nmf["loadings"].assign_attrs(long_name="loading"))
    return {
        f"{step}-components": result.plot_components(step),
        f"{step}-loadings": plot.maps(loadings, names=names),
        f"{step}-composite": plot.composite(loadings, names=names),
        f"{step}-residuals": result.plot_quality(cube, step),
    }


def _views(data: xr.DataArray) -> xr.DataArray:
    """Five views of half a turn, of what has a tilt: past 180 degrees a needle is seen from behind."""
    if "tilt" not in data.dims:
        return data.compute()
    half = data.sel(tilt=slice(0, 180))
    return half.isel(tilt=[round(i * (half.sizes["tilt"] - 1) / 4) for i in range(5)]).compute()


def _telling_lines(components: xr.DataArray, cube: xr.DataArray) -> list[str]:
    """Name each component by number and by the line that tells it from the others."""
    from emcube.cube import get_metadata
    from emcube.xray import label_peaks

    elements = get_metadata(cube).elements
    values = components.transpose("component", "energy").values
    energy = components["energy"].values
    mean = values.mean(axis=0)
    names = []
    for i, spectrum in enumerate(values):
        peaks = label_peaks(energy, spectrum, elements)
        excess = {
            peak.text: peak.height - mean[abs(energy - peak.energy).argmin()] for peak in peaks
        }
        names.append(f"{i}: {max(excess, key=excess.__getitem__)}" if excess else f"component {i}")
    return names


def _angles(result: Result, scene: Scene) -> dict[str, float]:
    """Return the KK-weighted angle (degrees) of the nearest NMF component to each true one."""
    from emcube.scenes.metrics import match_components

    found = result["nmf"]["components"].values
    if found.shape[0] < scene.n_components:
        return {}
    mean = result["input"]["sum_spectrum"].values
    _, angles = match_components(found, scene.components.values, mean)
    names = scene.components["component"].values
    return {str(name): round(float(a), 3) for name, a in zip(names, angles, strict=True)}


def _catalog(folder: Path, entry: str) -> Path:
    """Name the catalog that knows the store: the clone's own, or one written beside the store."""
    of_clone = folder.parent / "catalogs" / "demo.yaml"
    if folder.name == "demo" and entry == "srm2135c" and of_clone.is_file():
        return of_clone
    path = folder / "catalog.yaml"
    text = CATALOG.replace("@entry@", entry).replace("@metadata@", SCENES[entry].catalog)
    path.write_text(text, encoding="utf-8")
    return path
