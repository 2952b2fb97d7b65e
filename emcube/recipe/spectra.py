"""Spectra that a recipe gives to a step: found by name, laid on the channels of the cube, known by digest.

Letters: M spectra, E channels of the cube.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube.addresses import is_url, redact
from emcube.cube import nav_dims, sig_dims
from emcube.errors import EmcubeError, InputError, UnitsError
from emcube.models.fields import Fields
from emcube.models.labels import AXIS_TOLERANCE, Labels, as_source
from emcube.recipe.schema import SpectraOf
from emcube.units import convert

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from emcube.recipe.recipe import Recipe
    from emcube.results import Result

__all__ = ["GIVEN", "GivenSpectra", "given_parameters", "paths_of", "values_of", "with_spectra"]

GIVEN = ("known", "init")
"""Parameters of steps that may name spectra; also the variables of a node that keep them."""

MOST = 64
"""Spectra that one name may stand for: more are a map, and one of its pixels is no standard."""


@dataclass(frozen=True, eq=False)
class GivenSpectra:
    """Spectra of one name of a recipe.

    Attributes
    ----------
    step, parameter : str
        What they are given to.
    digest : str
        Of `values`.
    values : ndarray, shape (M, E)
        On all channels of the prepared cube, in the unit that they came in.
    address : dict
        How the recipe names them, for the record.
    """

    step: str
    parameter: str
    digest: str
    values: NDArray[np.float64]
    address: dict[str, Any]

    def recorded(self) -> dict[str, Any]:
        """Entry of the provenance."""
        found = {"step": self.step, "parameter": self.parameter, "digest": self.digest}
        return {**found, "spectra": len(self.values), **self.address}


def given_parameters(step: Any) -> Iterator[tuple[str, tuple[SpectraOf, ...]]]:
    """Parameters of a step that name spectra."""
    for parameter in GIVEN:
        value = getattr(step, parameter, None)
        if isinstance(value, tuple):
            yield parameter, value


def paths_of(recipe: Recipe) -> Iterator[str]:
    """Where the spectra of a recipe are read from."""
    for step in recipe.steps:
        for _, named in given_parameters(step):
            yield from (recipe.locate(one.path) for one in named if one.path is not None)


def digest_of(values: NDArray[np.float64]) -> str:
    """Digest of spectra (M, E), whatever their unit and axis are called."""
    # Zero has two signs, and they mean the same.
    plain = np.ascontiguousarray(values + 0.0, dtype="<f8")
    head = f"spectra {plain.shape}".encode()
    return "sha256:" + hashlib.sha256(head + plain.tobytes()).hexdigest()


def with_spectra(recipe: Recipe, cube: Any, held: Result | None = None) -> Recipe:
    """Read the spectra that a recipe names, and name them by their digests.

    Parameters
    ----------
    recipe : Recipe
    cube : DataArray or Fields
        Prepared.
    held : Result, optional
        Of a run of the same recipe: what holds spectra that are named by digest alone.

    Returns
    -------
    Recipe
        With `Recipe.given`; the same one where it names none.

    Raises
    ------
    InputError
        A file is not there or holds no such spectra; they do not lie on the channels of the cube; values are
        not finite, or negative.
    """
    if not any(True for step in recipe.steps for _ in given_parameters(step)):
        return recipe
    labels = as_source(cube.cubes[0] if isinstance(cube, Fields) else cube)[1]
    found: list[GivenSpectra] = []
    steps = []
    for i, step in enumerate(recipe.steps):
        changes = {}
        for parameter, named in given_parameters(step):
            place = recipe.place(("steps", i, step.verb, parameter))
            own = [_resolved(recipe, step.label, parameter, o, labels, held, place) for o in named]
            found += [one for one in own if one is not None]
            changes[parameter] = tuple(
                old if new is None else SpectraOf(digest=new.digest, spectra=len(new.values))
                for old, new in zip(named, own, strict=True)
            )
        steps.append(step.model_copy(update=changes) if changes else step)
    model = recipe.model.model_copy(update={"steps": tuple(steps)})
    return replace(recipe, model=model, given=tuple(found))


def values_of(
    named: Sequence[SpectraOf], given: Sequence[GivenSpectra], components: Any
) -> NDArray[np.float64]:
    """Spectra (M, E) of a parameter.

    Parameters
    ----------
    named : sequence of SpectraOf
        By digest, or of earlier steps.
    given : sequence of GivenSpectra
    components : callable
        Components (K, E) of an earlier step, by its name.
    """
    known = {one.digest: one.values for one in given}
    parts = []
    for one in named:
        if one.digest is not None:
            parts.append(known[one.digest])
            continue
        own = np.asarray(components(one.step), dtype=np.float64)
        parts.append(_chosen(own.reshape(len(own), -1), one, f"step {one.step!r}"))
    return np.concatenate(parts)


def _resolved(
    recipe: Recipe,
    step: str,
    parameter: str,
    named: SpectraOf,
    labels: Labels,
    held: Result | None,
    place: str,
) -> GivenSpectra | None:
    """Spectra of one name; None for those of an earlier step, which are not there yet."""
    if not named.outside:
        return None
    if named.digest is not None:
        return _held(named, step, parameter, recipe, held, place)
    where = f"{place}: {parameter} of {step!r}, {redact(str(named.path))!r}"
    values = _on_channels(_opened(recipe.locate(str(named.path)), named, where), labels, where)
    _require_spectra(values, where)
    address = {**named.model_dump(mode="json"), "path": redact(str(named.path))}
    address["of_step"] = address.pop("step", None)
    address = {key: value for key, value in address.items() if value is not None}
    return GivenSpectra(step, parameter, digest_of(values), values, address)


def _held(
    named: SpectraOf,
    step: str,
    parameter: str,
    recipe: Recipe,
    held: Result | None,
    place: str,
) -> GivenSpectra:
    """Spectra that are named by their digest: those in hand, or those that a result keeps."""
    for one in recipe.given:
        if (one.step, one.parameter, one.digest) == (step, parameter, named.digest):
            return one
    n, digest = int(named.spectra or 0), str(named.digest)
    if held is not None and step in held and parameter in held[step]:
        kept = np.asarray(held[step][parameter].values, dtype=np.float64)
        kept = kept.reshape(len(kept), -1)
        for start in range(len(kept) - n + 1):
            if digest_of(kept[start : start + n]) == digest:
                address = _address_in(held, step, parameter, digest)
                return GivenSpectra(step, parameter, digest, kept[start : start + n], address)
    told = "no result was given" if held is None else f"the result at {held.location!r} has others"
    raise InputError(
        f"{place}: {parameter} of {step!r} names spectra by their digest alone, and {told}",
        hint="name their file again; or give the result that was made with them: "
        "em.run(recipe, cube, spectra=result)",
    )


def _address_in(held: Result, step: str, parameter: str, digest: str) -> dict[str, Any]:
    """How the recipe of a result named the spectra."""
    own = {"step": step, "parameter": parameter, "digest": digest}
    for one in held.provenance.get("spectra") or ():
        if all(one.get(key) == value for key, value in own.items()):
            return {k: value for k, value in one.items() if k not in (*own, "spectra")}
    return {}


# ------------------------------------------------------------------------------------------- reading


def _opened(place: str, named: SpectraOf, where: str) -> xr.DataArray:
    """Spectra of a file or of a result, with one dim before those of the signal."""
    try:
        found = _of_result(place, named, where)
        if found is None:
            found = _of_file(place, named, where)
    except InputError:
        raise
    except EmcubeError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from error
    return found


def _of_result(place: str, named: SpectraOf, where: str) -> xr.DataArray | None:
    """Components of a step of a result; None where there is no result."""
    from emcube.results import open_result
    from emcube.results.kinds import PARTS
    from emcube.results.remote import read_remote_root
    from emcube.results.tree import read_root

    root = read_remote_root(place) if is_url(place) else read_root(Path(place))
    if root is None:
        if named.step is not None:
            raise InputError(
                f"{where}: 'step' is {named.step!r}, and there is no result of emcube at this path",
                hint="leave 'step' out, or name the folder of a result",
            )
        return None
    result = open_result(place)
    able = [name for name in result.steps if result.verb(name) in PARTS]
    step = named.step or (able[-1] if able else None)
    if step not in able:
        raise InputError(
            f"{where}: the result has no step {step!r} with components that are not negative"
            if step is not None
            else f"{where}: the result has no step with components that are not negative",
            hint=f"there are {', '.join(map(repr, able)) or 'none'}; write {{path: ..., step: ...}}",
        )
    found = result[step]["components"]
    return _selected(found.load(), named, where)


def _of_file(place: str, named: SpectraOf, where: str) -> xr.DataArray:
    from emcube.sources import open as open_cube

    cube = open_cube(place, name=named.name)
    nav = nav_dims(cube)
    n = int(np.prod([cube.sizes[d] for d in nav], dtype=np.int64))
    chosen = n if named.components is None else len(named.components)
    if chosen > MOST or len(nav) > 1:
        raise InputError(
            f"{where}: it holds {n} spectra over {dict(cube.sizes)}, expected one spectrum or a row of at "
            f"most {MOST}",
            hint="sum the pixels of a phase in Python and write them: "
            "em.export(cube.sel(...).mean(['y', 'x']), 'standard.msa')",
        )
    sig = sig_dims(cube)
    cube = cube.expand_dims("spectrum") if not nav else cube.rename({nav[0]: "spectrum"})
    return _selected(cube.transpose("spectrum", *sig), named, where).load()


def _selected(spectra: xr.DataArray, named: SpectraOf, where: str) -> xr.DataArray:
    """Those whose positions are named."""
    if named.components is None:
        return spectra
    _require_positions(len(spectra), named, where)
    return spectra.isel({spectra.dims[0]: list(named.components)})


def _chosen(values: NDArray[np.float64], named: SpectraOf, where: str) -> NDArray[np.float64]:
    if named.components is None:
        return values
    _require_positions(len(values), named, where)
    return values[list(named.components)]


def _require_positions(n: int, named: SpectraOf, where: str) -> None:
    beyond = [i for i in named.components or () if i >= n]
    if beyond:
        raise InputError(
            f"{where}: component {beyond[0]} is asked for, there are {n}, from 0 to {n - 1}",
            hint="count from 0, in the order of the file or of the result",
        )


def _require_spectra(values: NDArray[np.float64], where: str) -> None:
    """Refuse values that no spectrum of a part can have."""
    for i, one in enumerate(values):
        if np.isfinite(one).all() and one.min() >= 0 and one.sum() > 0:
            continue
        what = (
            f"{np.count_nonzero(~np.isfinite(one))} values that are no number"
            if not np.isfinite(one).all()
            else f"a smallest value of {one.min():.3g}"
            if one.min() < 0
            else "nothing in any channel of the cube"
        )
        raise InputError(
            f"{where}: spectrum {i} has {what}, expected finite values, none negative and not all zero",
            hint="clip what background removal leaves below zero, and choose channels that the spectrum has",
        )


# --------------------------------------------------------------------------------- onto the channels


def _on_channels(spectra: xr.DataArray, labels: Labels, where: str) -> NDArray[np.float64]:
    """Values (M, E) on the channels of the cube: as they are, cut, or summed in whole groups.

    Anything else would be interpolation, which is a choice of the user's.
    """
    sig = tuple(map(str, spectra.dims[1:]))
    mine = labels.signal_beside("component")
    if sig != mine and not (len(sig) == len(mine) == 1):
        raise InputError(
            f"{where}: signal dims {sig}, expected those of the cube, {mine}",
            hint="give spectra of the same kind of signal",
        )
    values = np.asarray(spectra.values, dtype=np.float64)
    axes = [_axis(spectra.coords.get(d)) for d in sig]
    wanted = [_axis(labels.sig_coords.get(d)) for d in labels.sig_dims]
    if values.shape[1:] == labels.sig_shape and all(
        _same(_in_unit(a, b, where), b) for a, b in zip(axes, wanted, strict=True)
    ):
        return values.reshape(len(values), -1)
    if len(sig) == 1 and axes[0] is not None and wanted[0] is not None:
        laid = _laid(values, _in_unit(axes[0], wanted[0], where), wanted[0])
        if laid is not None:
            return laid
    raise InputError(
        f"{where}: {_told(sig, values.shape[1:], axes)}, that of the cube after 'prepare' "
        f"{_told(mine, labels.sig_shape, wanted)}; expected its channels, more of the same, or finer ones of "
        "which whole groups make them",
        hint="interpolate the spectrum in Python and write it: "
        f"em.export(em.open(path).interp({mine[0]}=cube.{mine[0]}), 'standard.msa')",
    )


@dataclass(frozen=True, eq=False)
class _Axis:
    values: NDArray[np.float64]
    unit: str

    @property
    def width(self) -> float:
        n = self.values.size
        return float(abs(self.values[-1] - self.values[0]) / (n - 1)) if n > 1 else 1.0


def _axis(coord: xr.DataArray | None) -> _Axis | None:
    if coord is None or coord.dtype.kind not in "iuf":
        return None
    unit = str(coord.attrs.get("units") or "").strip()
    return _Axis(np.asarray(coord.values, dtype=np.float64), "" if unit == "1" else unit)


def _in_unit(axis: _Axis | None, like: _Axis | None, where: str) -> _Axis | None:
    """The axis in the unit of another; as it is where one of them has none."""
    if axis is None or like is None or not axis.unit or not like.unit or axis.unit == like.unit:
        return axis
    try:
        return _Axis(np.asarray(convert(axis.values, axis.unit, like.unit)), like.unit)
    except UnitsError as error:
        raise InputError(
            f"{where}: channels in {axis.unit}, those of the cube are in {like.unit}: {error.message}",
            hint="give a spectrum of the same kind of signal",
        ) from error


def _same(axis: _Axis | None, other: _Axis | None) -> bool:
    """Whether channels lie where they should, as far as both say where that is."""
    if axis is None or other is None:
        return True
    apart = np.abs(axis.values - other.values).max(initial=0.0)
    return bool(apart <= AXIS_TOLERANCE * other.width)


def _laid(
    values: NDArray[np.float64], axis: _Axis | None, wanted: _Axis
) -> NDArray[np.float64] | None:
    """Values (M, n) cut to the channels of another axis, summed where those are wider; None if not so."""
    assert axis is not None
    if axis.values.size < 2 or wanted.values.size < 2:
        return None
    group = round(wanted.width / axis.width)
    if group < 1:
        return None
    # The centre of the first channel of the first group.
    first = wanted.values[0] - 0.5 * (group - 1) * np.sign(np.diff(axis.values[:2])[0]) * axis.width
    start = int(np.abs(axis.values - first).argmin())
    stop = start + group * wanted.values.size
    if stop > axis.values.size:
        return None
    centres = axis.values[start:stop].reshape(-1, group).mean(axis=1)
    if not _same(_Axis(centres, wanted.unit), wanted):
        return None
    return np.asarray(values[:, start:stop].reshape(len(values), -1, group).sum(axis=2))


def _told(dims: Sequence[str], shape: Sequence[int], axes: Sequence[_Axis | None]) -> str:
    parts = []
    for dim, n, axis in zip(dims, shape, axes, strict=True):
        if axis is None:
            parts.append(f"{dim} has {n} channels without coordinates")
        else:
            unit = f" {axis.unit}" if axis.unit else ""
            parts.append(
                f"{dim} goes from {axis.values[0]:g} to {axis.values[-1]:g}{unit} in {n} channels"
            )
    return ", ".join(parts)
