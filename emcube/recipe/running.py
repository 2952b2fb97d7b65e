"""Run a recipe: find the cube, know the run, do the steps, leave a result."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from emcube.addresses import check_address, is_url, local_part
from emcube.cube import nav_dims, resolve_where, sig_dims
from emcube.engine import (
    Checkpoints,
    Target,
    Writing,
    ZarrTarget,
    checkpointing,
    map_blocks,
    resident,
    run_sweeps,
)
from emcube.engine.checkpoint import current_checkpoints, remembered
from emcube.engine.memory import return_memory
from emcube.errors import EmcubeError, InputError, SelectionError
from emcube.feedback.events import group
from emcube.feedback.events import step as tell_step
from emcube.models.base import resolve_seed
from emcube.models.fields import Fields, several
from emcube.models.labels import as_source
from emcube.models.sweeps import TotalsSweep
from emcube.recipe.inputs import Input, find_input, require_apart, stored_input
from emcube.recipe.prepare import Prepared, prepare
from emcube.recipe.recipe import Recipe
from emcube.recipe.schema import Where
from emcube.recipe.spectra import GIVEN, with_spectra
from emcube.recipe.steps import Run, first_sums, run_step
from emcube.recipe.sums import pixel_sums, smooth_sums
from emcube.results.provenance import now, run_id, stack
from emcube.results.remote import RemoteResult
from emcube.results.result import Result, open_result
from emcube.results.tree import (
    ResultWriter,
    begun_roots,
    checkpoint_folder,
    field_node,
    frame,
    read_root,
    require_free,
    require_own,
)
from emcube.store.write import local_path

__all__ = ["Ahead", "default_recipe", "look_ahead", "result_address", "run"]

_log = logging.getLogger(__name__)

INPUT = "input"
"""Node of the result that holds sums of the cube and what was used of it."""


def run(
    what: Recipe | str | os.PathLike[str] | Mapping[str, Any] | xr.DataArray,
    cube: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    n_components: int | None = None,
    overwrite: bool = False,
    seeds: Mapping[str, int] | None = None,
    spectra: Result | str | os.PathLike[str] | None = None,
) -> Result:
    """Run a whole analysis and write its result.

    Parameters
    ----------
    what : path, dict, Recipe or DataArray
        A recipe: a YAML file, plain data or a `Recipe`. Or a cube (in hand, or whatever
        `emcube.open` takes: instrument file, store, URL, ``catalog.yaml:entry``) on which the default
        recipe runs: number of components, PCA, NMF, k-means.
    cube : DataArray, or list of them, optional
        The cube to run the recipe on, where the recipe names no input. Several cubes (also what a catalog's
        search found) are fitted together and stay apart.
    out : path-like or URL, optional
        Folder of the result; default the recipe's ``output``. Or an address of storage, such as
        ``s3://bucket/result``: the run is then done in a folder of this machine (see
        `emcube.store.upload.staging_folder`) and its result copied when it is whole.
    name : str, optional
        Which signal, where a file holds several; for the default recipe only.
    n_components : int, optional
        Components of the default recipe; default those that the data support.
    overwrite : bool
        Replace the result of another run.
    seeds : mapping of str to int, optional
        Seeds of steps that leave theirs open (``random_state: null``), by name: those that another run drew
        (``provenance["seeds"]``), to be that run again.
    spectra : Result or path, optional
        Result of the same recipe, where that is a recorded one (`Result.recipe`): it names given spectra by
        their digest alone, and its result keeps them.

    Returns
    -------
    Result
        Complete, on disk, opened lazily.

    Raises
    ------
    RecipeError
        The recipe is not valid; nothing was read.
    InputError
        Recipe and cube do not fit, or `out` holds something else.
    InterruptedRunError
        The user stopped the run, or a signal did (`PreemptedRunError`); the same call goes on from there.

    Notes
    -----
    The same run (see `Result.run_id`) that is complete is not run again; one that was stopped, however, goes
    on: finished steps stay, the step that was running goes on from its last checkpoint (see
    `emcube.engine.checkpointing`; here they lie in a hidden folder beside the result). Steps share blocks,
    which stay in memory as far as the budget goes. A ``random_state`` left open is drawn and recorded; a
    result that is continued keeps the seeds it was begun with.

    Examples
    --------
    >>> result = em.run("recipe.yaml", out="results/map")  # doctest: +SKIP
    """
    recipe, cube = _understand(what, cube, name=name, n_components=n_components)
    address = result_address(recipe, out)
    there = None if address is None else RemoteResult(address)
    path = _destination(recipe, out) if there is None else there.staging
    require_apart(recipe, cube, path if there is None else there.address)
    held = open_result(os.fspath(spectra)) if isinstance(spectra, str | os.PathLike) else spectra
    whole = group(_called(recipe), len(recipe.steps) + 1)
    with whole, find_input(recipe, cube, path.parent) as source, _noted(recipe):
        prepared = prepare(source.cube, recipe.prepare)
        recipe = with_spectra(recipe, prepared.cube, held)
        if there is None:
            attributes = _identify(recipe, source, prepared, begun_roots(path), seeds or {})
            return _run_in(path, recipe, source, prepared, attributes, overwrite)
        root = there.root()
        roots = [*begun_roots(path), *([] if root is None else [root])]
        attributes = _identify(recipe, source, prepared, roots, seeds or {})
        existing = there.kept(attributes["run_id"], overwrite=overwrite)
        if existing is not None:
            return existing
        result = _run_in(path, recipe, source, prepared, attributes, overwrite)
    return there.publish(result)


def _called(recipe: Recipe) -> str:
    """What a run is called while it goes on."""
    source = recipe.document.source
    return "run" if source is None else f"run {source.name}"


def _run_in(
    path: Path,
    recipe: Recipe,
    source: Input,
    prepared: Prepared,
    attributes: dict[str, Any],
    overwrite: bool,
) -> Result:
    """Run in a folder, or open what the same run has left there."""
    writer = ResultWriter(path, attributes)
    existing = _kept(path, attributes["run_id"])
    if existing is not None and writer.is_settled:
        return existing
    with writer.lock(), _what_is_left(writer, recipe):
        writer.settle()
        # Another process may have finished it since.
        existing = _kept(path, attributes["run_id"])
        if existing is not None:
            return existing
        writer.create(overwrite=overwrite)
        with checkpointing(writer.checkpoints, identity=attributes["run_id"]) as kept:
            return _carry_out(recipe, source, prepared, writer, kept)


# ------------------------------------------------------------------------------ before the first read


def default_recipe(n_components: int | None = None) -> dict[str, Any]:
    """Return the recipe that runs where none is given, as plain data.

    Parameters
    ----------
    n_components : int, optional
        Components and clusters; default as many as the data support.
    """
    number: int | str = "auto" if n_components is None else n_components
    return {
        "emcube": 1,
        "steps": [
            {"estimate_n_components": {}},
            {"pca": {"n_components": 20 if n_components is None else max(20, n_components)}},
            {"nmf": {"n_components": number, "random_state": 0}},
            {"kmeans": {"n_clusters": number, "random_state": 0}},
        ],
    }


@dataclass(frozen=True)
class Ahead:
    """What is known of a run before it reads anything.

    Attributes
    ----------
    path : pathlib.Path
        Folder of its result, absolute.
    run_id : str or None
        None where it takes the cube's content to know it, or a seed that is still to be drawn.
    finished : bool
        The folder holds this very run, complete.
    """

    path: Path
    run_id: str | None
    finished: bool


def look_ahead(
    recipe: Recipe, out: str | os.PathLike[str] | None = None, *, overwrite: bool = False
) -> Ahead:
    """Find where a run would write and whether it may, reading labels and attributes only.

    Parameters
    ----------
    recipe : Recipe
    out : path-like, optional
        Folder of the result; default the recipe's ``output``.
    overwrite : bool
        Another run's result may be replaced.

    Raises
    ------
    InputError
        The recipe and its input do not fit, or the folder holds something else (also besides a result that
        may be replaced).
    ReadError, StoreError, CatalogError
        The input is not there or cannot be opened.

    Notes
    -----
    What lies in an instrument file is known only when the run has read it; a result that is in the way
    is then recognised by its recipe alone.
    """
    path = _destination(recipe, out)
    require_apart(recipe, None, path)
    source = stored_input(recipe)
    root = read_root(path)
    if source is None:
        identity = None
        same = root is not None and _beside_spectra(root["recipe"]) == _beside_spectra(
            recipe.normalised()
        )
    else:
        with _noted(recipe):
            prepared = prepare(source.cube, recipe.prepare)
            recipe = with_spectra(recipe, prepared.cube)
            attributes = _identify(recipe, source, prepared, begun_roots(path), {})
        identity = attributes["run_id"]
        same = root is not None and root.get("run_id") == identity
        if attributes["provenance"]["drawn_seeds"] and not same:
            identity = None  # drawn anew by the run itself
    complete = root is not None and bool(root["emcube"].get("complete"))
    if not same and (root is None or not overwrite):
        require_free(path, identity)
    if root is not None and overwrite and not (same and not complete):
        require_own(path)
    return Ahead(path, identity, identity is not None and same and complete)


def _beside_spectra(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A normalised recipe without what names spectra, which is known by digest in one that was run."""
    steps = [
        {
            verb: {
                key: "given" if key in GIVEN and isinstance(value, list) else value
                for key, value in parameters.items()
            }
            for verb, parameters in step.items()
        }
        for step in recipe["steps"]
    ]
    return {**recipe, "steps": steps}


def _understand(
    what: Any, cube: Any, *, name: str | None, n_components: int | None
) -> tuple[Recipe, Any]:
    """Tell recipes from cubes."""
    is_file = isinstance(what, str | os.PathLike)
    # What a catalog's search found is a mapping, too.
    given = None if is_file else several(what)
    is_recipe = (isinstance(what, Recipe | Mapping) and given is None) or (
        is_file and Path(what).suffix.lower() in (".yaml", ".yml")
    )
    if is_recipe:
        for value, word in ((name, "name"), (n_components, "n_components")):
            if value is not None:
                raise InputError(
                    f"{word!r} belongs to a run without a recipe, got {value!r} beside a recipe",
                    hint="write it into the recipe",
                )
        if isinstance(what, Recipe):
            return what, cube
        return (Recipe.from_dict(what) if isinstance(what, Mapping) else Recipe.read(what)), cube
    if cube is not None:
        raise InputError(
            f"a cube was given twice: {type(what).__name__} and {type(cube).__name__}",
            hint="give a recipe first, then the cube",
        )
    plain = default_recipe(n_components)
    if isinstance(what, xr.DataArray) or given is not None:
        what = what if given is None else given
        if name is not None:
            raise InputError(f"'name' picks a signal in a file, got {name!r} beside a cube in hand")
        return Recipe.from_dict(plain), what
    if not is_file:
        raise InputError(
            f"a recipe or a cube is expected, got {type(what).__name__}",
            hint="give a YAML file, a dict, a DataArray, or the path of a cube",
        )
    plain["input"] = _as_input(os.fspath(what), name)
    return Recipe.from_dict(plain), None


def _as_input(address: str, name: str | None) -> dict[str, Any]:
    catalog, _, entry = address.rpartition(":")
    if Path(catalog).suffix.lower() in (".yaml", ".yml") and entry and not Path(address).exists():
        return {"catalog": catalog, "dataset": entry}
    return {"path": address} if name is None else {"path": address, "name": name}


def result_address(recipe: Recipe, out: str | os.PathLike[str] | None) -> str | None:
    """Where the result goes, if that is an address; None for a folder.

    Raises
    ------
    InputError
        The address holds credentials.
    """
    text = recipe.model.output if out is None else out
    # A path object has lost one of the slashes; `local_path` explains it.
    if not isinstance(text, str) or not is_url(local_part(text)):
        return None
    return check_address(text)


def _destination(recipe: Recipe, out: str | os.PathLike[str] | None) -> Path:
    if out is not None:
        return local_path(local_part(os.fspath(out))).absolute()
    if recipe.model.output is None:
        raise InputError(
            "nothing says where the result goes",
            hint="give --out (out= in Python), or write 'output: results/map' into the recipe",
        )
    output = str(local_path(local_part(recipe.model.output)))
    return Path(recipe.locate(output))


def _identify(
    recipe: Recipe,
    source: Input,
    prepared: Prepared,
    begun: Iterable[Mapping[str, Any]],
    given: Mapping[str, int],
) -> dict[str, Any]:
    """Root attributes of the result, the run's identity among them.

    `begun` are the root attributes of what lies where the result goes; `given` are seeds for steps that leave
    theirs open.
    """
    blocks, labels = as_source(prepared.cube)
    layout = blocks.plan.as_dict()
    normalised = recipe.normalised()

    def identity(seeds: Mapping[str, int]) -> str:
        return run_id(digest=source.digest, recipe=normalised, seeds=seeds, layout=layout)

    seeds = {s.label: s.seed for s in recipe.steps if s.seed is not None}
    open_seeds = [s.label for s in recipe.steps if s.draws]
    _require_open(given, open_seeds)
    if open_seeds:
        # A run that was begun with drawn seeds is the same run when it is started again.
        drawn = {**seeds, **{k: resolve_seed(given.get(k)) for k in open_seeds}}
        for root in begun:
            recorded = {**root["provenance"].get("seeds", {}), **given}
            again = {**seeds, **{k: recorded[k] for k in open_seeds if k in recorded}}
            if identity(again) == root["run_id"]:
                drawn = again
                break
        seeds = drawn
    return {
        "run_id": identity(seeds),
        "recipe": normalised,
        "provenance": {
            "input": {"digest": source.digest, **source.address},
            **({"spectra": [one.recorded() for one in recipe.given]} if recipe.given else {}),
            "cube": {
                "dims": list(map(str, prepared.cube.dims)),
                "shape": list(prepared.cube.shape),
                "dtype": str(prepared.cube.dtype),
                "units": labels.units,
            },
            "seeds": seeds,
            "drawn_seeds": open_seeds,
            "layout": layout,
            "stack": stack(),
        },
    }


def _require_open(given: Mapping[str, int], open_seeds: list[str]) -> None:
    """Refuse seeds of steps that have one in the recipe, or need none."""
    wrong = sorted(set(given) - set(open_seeds))
    if wrong:
        raise InputError(
            f"seeds: got one for {wrong[0]!r}, expected steps that leave theirs open ({open_seeds})",
            hint="write it into the recipe (random_state), or leave it out",
        )


def _kept(path: Path, identity: str) -> Result | None:
    """Open the result of the same run, if it is complete."""
    root = read_root(path)
    if root is None or root.get("run_id") != identity or not root["emcube"].get("complete"):
        return None
    # A run that was killed at its very end leaves them.
    shutil.rmtree(checkpoint_folder(path), ignore_errors=True)
    _log.info("%s holds this run already", path)
    return open_result(path)


# ------------------------------------------------------------------------------------------- running


def _carry_out(
    recipe: Recipe, source: Input, prepared: Prepared, writer: ResultWriter, kept: Checkpoints
) -> Result:
    started = now()
    tell_step(0, INPUT)
    if isinstance(prepared.cube, Fields):
        return _carry_out_fields(recipe, prepared, writer, kept, started)
    # A polygon lies over two dims; a series has it at each of its positions.
    where, _ = resolve_where(prepared.cube, prepared.region)
    seeds, steps = writer.attributes["provenance"]["seeds"], {s.label: s for s in recipe.steps}
    state = Run(writer, prepared.cube, where, seeds, steps, given=recipe.given)
    if recipe.model.where is None:
        with resident():
            with kept.scope(INPUT):
                _write_input(recipe, prepared.cube, where, writer)
            _run_steps(recipe, state, kept)
    else:
        # The sums come from all pixels and the steps from some: blocks that only the sums need
        # would take the place of those that every step needs.
        with kept.scope(INPUT):
            state.where = _write_input(
                recipe, prepared.cube, where, writer, rule=recipe.model.where
            )
        with resident():
            _run_steps(recipe, state, kept)
    return _finished(writer, started)


def _finished(writer: ResultWriter, started: str) -> Result:
    return_memory()
    provenance = {**writer.attributes["provenance"], "started": started, "finished": now()}
    writer.finish({"provenance": provenance})
    return open_result(writer.path)


def _carry_out_fields(
    recipe: Recipe, prepared: Prepared, writer: ResultWriter, kept: Checkpoints, started: str
) -> Result:
    """Run on several cubes: sums of each, then each step on all of them together."""
    fields: Fields = prepared.cube
    seeds, steps = writer.attributes["provenance"]["seeds"], {s.label: s for s in recipe.steps}
    where: list[Any] = []
    for name, cube, region in zip(fields.names, fields.cubes, prepared.region, strict=True):
        used, _ = resolve_where(cube, region)
        node = field_node(name, INPUT)
        with kept.scope(f"{INPUT}.{name}"):
            where.append(
                _write_input(recipe, cube, used, writer, rule=recipe.model.where, node_name=node)
            )
        kept.drop(f"{INPUT}.{name}")
    _write_common_input(fields, writer)
    state = Run(writer, fields, where, seeds, steps, given=recipe.given)
    with resident():
        _run_steps(recipe, state, kept)
    return _finished(writer, started)


def _write_common_input(fields: Fields, writer: ResultWriter) -> None:
    """Write what the cubes of a run have in common: metadata, and the sum of their spectra."""
    if writer.has_node(INPUT):
        return
    _, labels = as_source(fields)
    sums = [writer.node(field_node(name, INPUT))["sum_spectrum"].load() for name in fields.names]
    whole = sums[0].copy(data=sum(one.values for one in sums))
    node = writer.write_node(
        INPUT,
        xr.Dataset({"sum_spectrum": whole}),
        verb=INPUT,
        nav=labels.nav_dims,
        sig=labels.sig_dims,
        attributes={"metadata": labels.attrs.get("metadata") or {}},
        maps=False,
    )
    node.finish()


def _run_steps(recipe: Recipe, state: Run, kept: Checkpoints) -> None:
    kept.drop(INPUT)
    for i, step in enumerate(recipe.steps):
        if state.writer.has_node(step.label):
            state.nodes[step.label] = state.writer.node(step.label)
            continue
        tell_step(i + 1, step.label)
        try:
            with kept.scope(step.label):
                state.nodes[step.label] = run_step(step, state)
            kept.drop(step.label)
        except EmcubeError as error:
            error.add_note(f"in step {step.label!r}, {recipe.step_place(i)}")
            raise


def _write_input(
    recipe: Recipe,
    cube: xr.DataArray,
    region: xr.DataArray | None,
    writer: ResultWriter,
    *,
    rule: Where | None = None,
    node_name: str = INPUT,
) -> xr.DataArray | None:
    """Write the node of sums; return which pixels are used (None: all).

    Where all pixels are used one pass does it, and sums what the steps will ask for first as well; the blocks
    stay in memory for the steps. A selection takes a second pass: totals are of all pixels.
    """
    nav, sig = nav_dims(cube), sig_dims(cube)
    blocks, labels = as_source(cube)
    units = {"units": labels.units}
    if writer.has_node(node_name):
        finished = writer.node(node_name)
        return finished["used"].load() if "used" in finished else None
    # Companion images come along: they lie on the same grid.
    coords = {
        str(k): c.load() if k not in cube.dims else c
        for k, c in cube.coords.items()
        if c.ndim and set(c.dims) <= set(nav)
    }
    where = region
    if rule is not None:
        where = _used(cube, region, rule, writer.path / node_name / "smoothing")
    used_blocks, used_labels = as_source(cube, where)
    nothing = np.zeros(used_blocks.n_channels)
    spectrum = used_labels.spectra(nothing, dim=None, name="sum_spectrum", attrs=units)
    values: dict[str, xr.DataArray] = {
        "total_counts": frame(
            nav, labels.nav_shape, blocks.plan.output_shape(8), np.float64, units, coords
        ),
        "sum_spectrum": spectrum.chunk(),
    }
    if where is not None:
        values["used"] = where.transpose(*nav).astype(bool).assign_attrs(units="1")
    node = writer.write_node(
        node_name,
        xr.Dataset(values),
        verb=INPUT,
        nav=nav,
        sig=sig,
        attributes={"metadata": cube.attrs.get("metadata") or {}},
    )
    target: dict[str, Target] = {
        "total_counts": ZarrTarget(str(writer.path), f"{node_name}/total_counts")
    }
    totals = TotalsSweep(counts=False)
    # Of several cubes the steps sum all together.
    asked = [totals, *(first_sums(recipe, cube, used_blocks) if node_name == INPUT else [])]
    if where is None:
        writing = Writing(pixel_sums, blocks.plan, target, "total counts")
        sums = run_sweeps([*asked, writing], blocks)[0].state
    else:
        sums = run_sweeps(asked, used_blocks)[0].state
        map_blocks(pixel_sums, blocks, target, name="total counts", continues=node.attempt)
    filled = used_labels.spectra(sums.channels, dim=None)
    node.put("sum_spectrum", filled.values)
    node.finish()
    return where


def _used(
    cube: xr.DataArray, region: xr.DataArray | None, rule: Where, scratch: Path
) -> xr.DataArray:
    """Pixels whose smoothed counts reach a level, within the region."""
    level = rule.min_smoothed_counts
    nav = nav_dims(cube)
    coords = {k: c for k, c in cube.coords.items() if set(map(str, c.dims)) <= set(nav)}

    def choose() -> Any:
        kept = current_checkpoints()
        # Whether it is asked or remembered must not change the numbers of later calls.
        with nullcontext() if kept is None else kept.scope("smoothing"):
            smooth = smooth_sums(cube, rule.sigma, scratch)
        used = smooth >= level if region is None else (smooth >= level) & region
        if not bool(used.any()):
            raise SelectionError(
                f"where: no pixel reaches {level:g} smoothed counts, "
                f"the most is {float(smooth.max()):g}",
                hint="lower min_smoothed_counts",
            )
        return used.transpose(*nav).values

    return xr.DataArray(remembered("where", choose, np.ndarray), dims=nav, coords=coords)


# ----------------------------------------------------------------------------------- when it goes wrong


@contextmanager
def _noted(recipe: Recipe) -> Iterator[None]:
    """Name the recipe's file with errors that the data bring about."""
    try:
        yield
    except SelectionError as error:
        if recipe.document.source is not None and not getattr(error, "__notes__", []):
            error.add_note(f"in {recipe.document.source.name}")
        raise


@contextmanager
def _what_is_left(writer: ResultWriter, recipe: Recipe) -> Iterator[None]:
    """Say of a run that was stopped what is finished and what is not."""
    try:
        yield
    except KeyboardInterrupt as error:
        done = [s.label for s in recipe.steps if writer.has_node(s.label)]
        error.add_note(
            f"the result at {str(writer.destination)!r} is incomplete, "
            f"finished: {', '.join(done) or 'nothing'}; the same command goes on from there"
        )
        raise
