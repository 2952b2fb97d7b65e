"""Metadata of a cube as typed models: checked at the door, plain JSON everywhere else.

In ``cube.attrs["metadata"]`` lies the JSON form (a dict), so that Zarr, NetCDF and every other
reader keep it; :class:`Metadata` is the typed view. What a user writes is checked strictly: an
unknown key is a mistake. What a file says is kept: unknown keys move to ``extra``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from emcube.errors import CubeError

__all__ = ["ELEMENTS", "Detector", "Metadata", "Source"]

#: Symbols of the chemical elements; the position is the atomic number minus one.
ELEMENTS: tuple[str, ...] = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl",
    "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As",
    "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In",
    "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb",
    "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl",
    "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk",
    "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn",
    "Nh", "Fl", "Mc", "Lv", "Ts", "Og",
)  # fmt: skip

#: What was measured.
Modality = Literal[
    "EDS", "WDS", "EELS", "CL", "XRF", "EBSD", "4D-STEM", "image", "spectrum", "other"
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any] | Self) -> Self:
        """Check what a user wrote; an unknown key is refused.

        Raises
        ------
        CubeError
            Names the key, what it held and what was expected.
        """
        if isinstance(values, cls):
            return values
        if not isinstance(values, Mapping):
            raise CubeError(
                f"metadata: got {type(values).__name__}, expected a mapping or {cls.__name__}",
                hint="for example metadata={'modality': 'EDS', 'elements': ['Si', 'O']}",
            )
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _as_cube_error(error, cls) from None

    @classmethod
    def from_attrs(cls, values: Mapping[str, Any]) -> Self:
        """Take the JSON form back: unknown keys (of a newer version, say) move to ``extra``.

        Raises
        ------
        CubeError
            A known key holds a wrong type or a value out of range.
        """
        return cls.parse(cls._sorted_out(values))

    @classmethod
    def from_file(cls, values: Mapping[str, Any]) -> Self:
        """Take what an instrument file says; nothing is refused and nothing is lost.

        Keys the model does not know, and values it cannot use (a beam energy of 0 for "not set"),
        move to ``extra`` under their own names.
        """
        kept = cls._sorted_out(values)
        for key, model in _NESTED.items():
            if isinstance(kept.get(key), Mapping) and key in cls.model_fields:
                kept[key] = model.from_file(kept[key])
        for key in [key for key in kept if key != "extra"]:
            try:
                cls.parse({key: kept[key]})
            except CubeError:
                kept["extra"] = {**kept.get("extra", {}), key: kept.pop(key)}
        return cls.parse(kept)

    @classmethod
    def _sorted_out(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        known = {k: v for k, v in values.items() if k in cls.model_fields and k != "extra"}
        extra = dict(values.get("extra") or {})
        extra |= {k: v for k, v in values.items() if k not in cls.model_fields}
        for key, model in _NESTED.items():
            if key in known and isinstance(known[key], Mapping):
                # The nested models hold only plain fields: sorted out by the same rule.
                known[key] = model._sorted_out(known[key])
        return {**known, "extra": extra} if extra else known

    def to_attrs(self) -> dict[str, Any]:
        """Return the JSON form; what is not known is left out."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _as_cube_error(error: ValidationError, cls: type[BaseModel]) -> CubeError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return CubeError(
            f"metadata: unknown key {where!r}; known keys are {', '.join(cls.model_fields)}",
            hint="put keys of your own under 'extra'",
        )
    return CubeError(
        f"metadata: {where}: got {first['input']!r}: {first['msg'].removeprefix('Value error, ')}",
        hint=f"correct {where!r} or leave it out",
    )


class Detector(_Model):
    """The detector; all fields may be left out.

    Attributes
    ----------
    type, name : str
        For example "SDD", "SuperX".
    energy_resolution_eV : float
        Full width at half maximum of Mn Ka, eV.
    azimuth_deg, elevation_deg : float
        Where the detector stands, degrees.
    solid_angle_sr : float
        Steradian.
    convergence_mrad, collection_mrad : float
        Half angles of probe and spectrometer (EELS, 4D-STEM), mrad.
    """

    type: str | None = None
    name: str | None = None
    energy_resolution_eV: Positive | None = None
    azimuth_deg: Finite | None = None
    elevation_deg: Finite | None = None
    solid_angle_sr: Positive | None = None
    convergence_mrad: NonNegative | None = None
    collection_mrad: NonNegative | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Source(_Model):
    """Where the data came from: a file, its format, the reader and the signal within the file."""

    file: str | None = None
    files: tuple[str, ...] = ()
    format: str | None = None
    reader: str | None = None
    signal: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)


class Metadata(_Model):
    """What is known of a cube beside its numbers; all fields may be left out.

    Attributes
    ----------
    title : str
    modality : str
        "EDS", "EELS", "4D-STEM", "image" and so on.
    beam_energy_keV : float
        Energy of the beam's electrons, keV.
    elements : tuple of str
        Chemical symbols, as "Si".
    detector : Detector
    tilt_deg : float
        Stage tilt, degrees (a tilt series has a dim ``tilt`` instead).
    live_time_s, real_time_s : float
        Of the whole acquisition, seconds.
    dwell_time_s : float
        Of one pixel, seconds.
    source : Source
    acquired : datetime.datetime
        When it was recorded.
    instrument, specimen : str
    extra : dict
        Anything else; JSON values.

    Examples
    --------
    >>> meta = Metadata.parse({"modality": "EDS", "elements": ["Si", "O"], "beam_energy_keV": 200})
    >>> meta.to_attrs()
    {'modality': 'EDS', 'beam_energy_keV': 200.0, 'elements': ['Si', 'O']}
    """

    title: str | None = None
    modality: Modality | None = None
    beam_energy_keV: Positive | None = None
    elements: tuple[str, ...] = ()
    detector: Detector = Detector()
    tilt_deg: Finite | None = None
    live_time_s: NonNegative | None = None
    real_time_s: NonNegative | None = None
    dwell_time_s: NonNegative | None = None
    source: Source = Source()
    acquired: dt.datetime | None = None
    instrument: str | None = None
    specimen: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("elements")
    @classmethod
    def _symbols(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in elements:
            if symbol not in ELEMENTS:
                better = symbol.strip().capitalize()
                meant = f", did you mean {better!r}?" if better in ELEMENTS else ""
                raise ValueError(f"{symbol!r} is not the symbol of a chemical element{meant}")
        # First mention wins; the order is the user's.
        return tuple(dict.fromkeys(elements))


#: Fields of :class:`Metadata` that are models themselves.
_NESTED: dict[str, type[_Model]] = {"detector": Detector, "source": Source}
