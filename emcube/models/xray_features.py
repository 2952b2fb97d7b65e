"""X-ray physics as a basis of spectra: characteristic lines and bremsstrahlung, as espm's matrix G.

Letters: E channels, M features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from emcube import units, xray
from emcube.cube import sig_dims
from emcube.errors import InputError
from emcube.models.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GROUPS", "basis_for", "xray_basis"]

GROUPS = ("family", "subshell", "element")
"""Which lines of an element share a feature, and so keep their ratio."""

LEAST_SHARE = 0.02
"""A feature of which less than this share lies on the energy axis is left out."""

RESOLUTION = 130.0
"""Of a silicon drift detector, eV at Mn Ka, where nothing is said."""


def xray_basis(
    cube: xr.DataArray,
    elements: Iterable[str] | None = None,
    *,
    beam_energy: float | None = None,
    resolution: float | None = None,
    group: str = "family",
    bremsstrahlung: bool = True,
    layers: Mapping[str, float] | None = None,
    crystal: float | None = None,
) -> xr.DataArray:
    """Make spectra of the lines of elements and of the bremsstrahlung, of which components may be sums.

    Parameters
    ----------
    cube : DataArray
        With an energy axis. Its metadata say what is left out below.
    elements : iterable of str, optional
        Symbols; default those of the metadata.
    beam_energy : float, optional
        keV. Lines that such electrons cannot excite are left out, and the bremsstrahlung ends there.
    resolution : float, optional
        Full width at half maximum at Mn Ka, **eV**; default that of the metadata, else 130.
    group : {"family", "subshell", "element"}
        One feature for all K lines of an element, one for L, one for M; or one for each subshell (whose
        ratios hang on the beam); or a single one, whose ratios between families are those of the table
        and hold for no specimen that absorbs.
    bremsstrahlung : bool
        Two features of the continuum (below).
    layers : mapping of str to float, optional
        Symbol to mass thickness in **micrograms per square centimetre** of what X-rays pass before they are
        counted: window, dead layer, or the specimen itself.
    crystal : float, optional
        Thickness of the detector's silicon, **mm**: what passes through is not counted.

    Returns
    -------
    DataArray (feature, energy)
        Each sums to one; the coordinate ``feature`` names them ("Fe_K", "bremsstrahlung_1").

    Raises
    ------
    InputError
        There is no energy axis, an element or the beam's energy is missing or unknown, or nothing is left.

    Notes
    -----
    Lines are Gaussians of the detector's width, integrated over channels. With E0 the beam's energy the
    continuum is b1 (E0 - E) / E0^2 + b2 (E0 - E)^2 / (E0^2 E), b1, b2 >= 0, times the share that is
    counted: Lifshin's form in espm's parameters. Line energies and relative intensities are those of
    `xraydb` (public domain; Elam, Ravel and Sieber 2002); between subshells of one family they are rough.
    Neither tails nor escape or sum peaks are in it.

    References
    ----------
    A. Teurtrie et al., Ultramicroscopy 249 (2023) 113719. https://doi.org/10.1016/j.ultramic.2023.113719
    E. Lifshin, Proc. 9th Ann. Conf. Microbeam Analysis Soc., Ottawa (1974) 53.
    W. T. Elam, B. D. Ravel, J. R. Sieber, Radiat. Phys. Chem. 63 (2002) 121.
    https://doi.org/10.1016/S0969-806X(01)00227-4

    Examples
    --------
    >>> import numpy as np, emcube as em
    >>> cube = em.make_cube(
    ...     np.zeros((2, 2, 500), np.uint8), dims=("y", "x", "energy"), sig_dims=("energy",),
    ...     coords={"energy": 0.01 + 0.02 * np.arange(500)}, units={"energy": "keV"},
    ... )
    >>> basis = em.xray_basis(cube, ["Ni", "Si"], beam_energy=200)
    >>> [str(name) for name in basis.feature.values]
    ['Ni_K', 'Ni_L', 'Si_K', 'bremsstrahlung_1', 'bremsstrahlung_2']
    """
    sig = sig_dims(cube)
    if len(sig) != 1 or sig[0] not in cube.coords:
        raise InputError(
            f"a basis of X-rays needs one signal dim with energies, got {sig}",
            hint="give the energies as a coordinate of the cube",
        )
    metadata = cube.attrs.get("metadata") or {}
    values, names = _features(
        cube.coords[sig[0]],
        metadata,
        elements,
        beam_energy=beam_energy,
        resolution=resolution,
        group=group,
        bremsstrahlung=bremsstrahlung,
        layers=layers,
        crystal=crystal,
    )
    return xr.DataArray(
        values,
        dims=("feature", sig[0]),
        coords={"feature": names, sig[0]: cube.coords[sig[0]]},
        name="basis",
        attrs={"units": "1 per channel"},
    )


def basis_for(given: Any, labels: Labels) -> tuple[NDArray[np.float64] | None, list[str]]:
    """Basis (M, E) over the used channels with the names of its features; None for None.

    Parameters
    ----------
    given : None, array (M, all channels), DataArray, or mapping
        A mapping holds parameters of `xray_basis`.
    labels : Labels
        Of the cube.

    Raises
    ------
    InputError
        It does not fit the cube.
    """
    from emcube.models.given import given_spectra

    if given is None:
        return None, []
    if isinstance(given, Mapping):
        given = _from_parameters(given, labels)
    named = isinstance(given, xr.DataArray) and "feature" in given.coords
    names = [str(n) for n in given.coords["feature"].values] if named else []
    values = given_spectra(_seen(given, labels), labels, None, "basis")
    return values, names or [str(i) for i in range(len(values))]


def _seen(given: Any, labels: Labels) -> Any:
    """A basis without NaN at channels that are not used."""
    return given.fillna(0.0) if isinstance(given, xr.DataArray) else given


def _from_parameters(given: Mapping[str, Any], labels: Labels) -> xr.DataArray:
    if labels.plain or len(labels.sig_dims) != 1 or labels.sig_dims[0] not in labels.sig_coords:
        raise InputError(
            "a basis of X-rays needs the energies of the channels, and this input has none",
            hint="pass a labelled cube with an energy axis, or the basis itself as an array",
        )
    energy = labels.sig_coords[labels.sig_dims[0]]
    try:
        values, names = _features(energy, labels.attrs.get("metadata") or {}, **given)
    except TypeError as error:
        raise InputError(
            f"basis: {error}", hint="its keys are the parameters of emcube.xray_basis"
        ) from error
    return xr.DataArray(
        values,
        dims=("feature", labels.sig_dims[0]),
        coords={"feature": names, labels.sig_dims[0]: energy},
    )


def _features(
    axis: xr.DataArray,
    metadata: Mapping[str, Any],
    elements: Iterable[str] | None = None,
    *,
    beam_energy: float | None = None,
    resolution: float | None = None,
    group: str = "family",
    bremsstrahlung: bool = True,
    layers: Mapping[str, float] | None = None,
    crystal: float | None = None,
) -> tuple[NDArray[np.float64], list[str]]:
    """Features (M, E) over all channels, and their names."""
    if group not in GROUPS:
        raise InputError(f"group must be one of {', '.join(map(repr, GROUPS))}, got {group!r}")
    energy = np.asarray(
        units.convert(np.asarray(axis.values, float), axis.attrs.get("units"), "keV")
    )
    edges = _edges(energy)
    symbols = list(metadata.get("elements") or () if elements is None else elements)
    if not symbols:
        raise InputError(
            "a basis of X-rays needs elements, and the metadata name none",
            hint="give them, as in elements=['Si', 'O']",
        )
    beam = metadata.get("beam_energy_keV") if beam_energy is None else beam_energy
    if beam is None and bremsstrahlung:
        raise InputError(
            "the bremsstrahlung needs the energy of the beam, and the metadata do not tell it",
            hint="give it in keV, as in beam_energy=200, or leave the bremsstrahlung out",
        )
    detector = metadata.get("detector") or {}
    width = resolution or detector.get("energy_resolution_eV") or RESOLUTION
    counted = _counted(energy, layers or {}, crystal)
    shapes = _lines(edges, symbols, beam, float(width), group, energy, counted)
    if bremsstrahlung and beam is not None:
        shapes |= _continuum(energy, float(beam), counted)
    if not shapes:
        raise InputError(
            f"no line of {', '.join(symbols)} lies between {energy[0]:g} and {energy[-1]:g} keV",
            hint="check the elements and the energy axis",
        )
    values = np.array(list(shapes.values()))
    return values / values.sum(axis=1, keepdims=True), list(shapes)


def _edges(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of channels (E + 1,) from their centres."""
    if energy.size < 2 or not (np.diff(energy) > 0).all():
        raise InputError(
            "the energies must increase, and be two at least",
            hint="sort the cube along its energy axis",
        )
    middles = 0.5 * (energy[1:] + energy[:-1])
    first, last = 2 * energy[0] - middles[0], 2 * energy[-1] - middles[-1]
    return np.concatenate(([first], middles, [last]))


def _lines(
    edges: NDArray[np.float64],
    elements: list[str],
    beam: float | None,
    resolution: float,
    group: str,
    energy: NDArray[np.float64],
    counted: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Features of lines by name; each whole line has the weight of its counts."""
    from scipy.special import ndtr

    found: dict[str, NDArray[np.float64]] = {}
    for element in elements:
        sums: dict[str, float] = {}
        mine: dict[str, NDArray[np.float64]] = {}
        for line in xray.lines_of(element, beam_energy=beam):
            name = element if group == "element" else f"{element}_{line.family}"
            if group == "subshell":
                name = f"{name}_{line.edge:.3f}keV"
            # Far below the axis the formula of the width has no meaning, and the line no place.
            if not edges[0] - 0.5 < line.energy < edges[-1] + 0.5:
                continue
            sigma = float(xray.fwhm(line.energy, resolution)) / np.sqrt(8.0 * np.log(2.0))
            weight = line.weight * float(np.interp(line.energy, energy, counted))
            shape = weight * np.diff(ndtr((edges - line.energy) / sigma))
            mine[name] = mine.get(name, np.zeros(energy.size)) + shape
            sums[name] = sums.get(name, 0.0) + weight
        kept = {n: v for n, v in mine.items() if v.sum() > LEAST_SHARE * max(sums[n], 1e-300)}
        if not kept:
            raise InputError(
                f"no line of {element} lies between {edges[0]:.3g} and {edges[-1]:.3g} keV"
                + ("" if beam is None else f" and is excited at {beam:g} keV"),
                hint="leave the element out",
            )
        found |= kept
    return found


def _continuum(
    energy: NDArray[np.float64], beam: float, counted: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The two features of the bremsstrahlung."""
    left = np.maximum(beam - energy, 0.0)
    # A channel at zero energy or below counts noise and no photons.
    positive = energy > 0.0
    over = np.divide(1.0, energy, out=np.zeros_like(energy), where=positive)
    return {
        "bremsstrahlung_1": np.where(positive, left, 0.0) / beam**2 * counted,
        "bremsstrahlung_2": left**2 * over / beam**2 * counted,
    }


def _counted(
    energy: NDArray[np.float64], layers: Mapping[str, float], crystal: float | None
) -> NDArray[np.float64]:
    """Share of the photons of each energy (keV) that pass the layers and stay in the crystal."""
    import xraydb

    # The tables begin at 100 eV.
    ev = 1e3 * np.clip(energy, 0.1, None)
    share = np.ones(energy.size)
    for element, thickness in layers.items():
        if not thickness >= 0.0:
            raise InputError(
                f"layers: {element} has the mass thickness {thickness!r}, from 0 on is meant"
            )
        try:
            share *= np.exp(-np.asarray(xraydb.mu_elam(element, ev)) * thickness * 1e-6)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"layers: {element!r} is no element", hint="use symbols, as in {'C': 42.0}"
            ) from error
    if crystal is not None:
        if not crystal > 0.0:
            raise InputError(f"crystal must be a thickness in mm, got {crystal!r}")
        share *= -np.expm1(-np.asarray(xraydb.mu_elam("Si", ev)) * 2.33 * crystal * 0.1)
    return share
