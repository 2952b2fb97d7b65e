"""Which signal of a file is the cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from emcube.errors import AmbiguousSignalError, ReadError
from emcube.io.signals import Signal, choose, companions_of, jsonable, name_signals, with_companions

HERE = Path("velox.emd")


def signal(
    title: str, dims: tuple[str, ...], sig: tuple[str, ...], n: int = 4, **attrs: Any
) -> Signal:
    array = xr.DataArray(
        np.zeros((n,) * len(dims)), dims=dims, attrs={"sig_dims": list(sig), **attrs}
    )
    return Signal.of(array, title)


CUBE, SPECTRUM, IMAGE = ("y", "x", "energy"), ("energy",), ("y", "x")


def test_names_are_unique_and_stable() -> None:
    file = [
        signal("EDS", SPECTRUM, SPECTRUM),
        signal("EDS", SPECTRUM, SPECTRUM),
        signal("HAADF", IMAGE, ()),
        signal("EELS", CUBE, ("energy",)),
        signal("EELS", CUBE, ("energy",)),
        signal("EDS", CUBE, ("energy",)),
        signal("", IMAGE, ()),
        signal("", CUBE, ("energy",), metadata={"modality": "4D-STEM"}),
    ]
    names = [s.name for s in name_signals(file)]
    assert names == [
        "EDS spectrum #1",
        "EDS spectrum #2",
        "HAADF",
        "EELS #1",
        "EELS #2",
        "EDS",
        "image",
        "4D-STEM",
    ]
    assert names == [s.name for s in name_signals(file)]


def test_the_one_cube_wins_over_spectra_and_images() -> None:
    file = name_signals(
        [
            signal("sum", SPECTRUM, SPECTRUM),
            signal("map", CUBE, ("energy",)),
            signal("BSE", IMAGE, ()),
        ]
    )
    assert choose(file, None, HERE).name == "map"


def test_several_cubes_are_ambiguous() -> None:
    file = name_signals(
        [signal("a", CUBE, ("energy",)), signal("I", IMAGE, ()), signal("b", CUBE, ("energy",))]
    )
    with pytest.raises(AmbiguousSignalError, match=r"2 signals.*expected one.*name='a'") as caught:
        choose(file, None, HERE)
    assert caught.value.names == ["a", "b", "I"]
    assert [choose(file, name, HERE).name for name in caught.value.names] == ["a", "b", "I"]


def test_by_name() -> None:
    file = name_signals([signal("EELS", CUBE, ("energy",)), signal("EELS", CUBE, ("energy",))])
    assert choose(file, "eels #2", HERE).name == "EELS #2"
    with pytest.raises(AmbiguousSignalError):
        choose(file, "EELS", HERE)
    with pytest.raises(ReadError, match=r"no signal is called 'EELS 2'.*did you mean name='EELS #"):
        choose(file, "EELS 2", HERE)
    with pytest.raises(ReadError, match="holds no signal"):
        choose([], None, HERE)


def test_images_come_along() -> None:
    cube = signal("map", CUBE, ("energy",))
    file = name_signals(
        [
            signal("HAADF", IMAGE, ()),
            signal("x", IMAGE, ()),
            signal("total_counts", IMAGE, ()),
            signal("over view", IMAGE, (), n=9),
            cube,
        ]
    )
    chosen = choose(file, None, HERE)
    labelled = with_companions(chosen, file)
    assert labelled.coords["HAADF"].dims == ("y", "x")
    # Names of dims and of a store's own variables are not taken twice.
    assert {"x_image", "total_counts_image"} <= set(labelled.coords)
    assert labelled.isel(y=0).coords["HAADF"].dims == ("x",)
    (other,) = companions_of(chosen, file)
    assert other.name == "over_view"
    assert other.shape == (9, 9)


def test_metadata_become_json() -> None:
    import json

    tree = {
        "a": np.float32(1.5),
        "b": np.arange(3),
        "c": np.zeros((100, 100)),
        1: b"\x00\x01",
        "d": [np.int64(1), {"e": (1, None)}],
        "f": float("nan"),
        "g": Path("p"),
    }
    plain = jsonable(tree)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["b"] == [0, 1, 2]
    assert plain["c"] == "<array of shape (100, 100), float64>"
