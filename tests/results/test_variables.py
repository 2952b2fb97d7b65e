"""The register of variables: a mismatch raises."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from emcube.errors import InputError
from emcube.results.variables import Variable, check_dataset, register, registered


def whole() -> xr.Dataset:
    return xr.Dataset(
        {
            "components": (("component", "energy"), np.ones((2, 3)), {"units": "1 per channel"}),
            "loadings": (("y", "x", "component"), np.ones((4, 5, 2)), {"units": "counts"}),
            "objective": ((), 1.0, {"units": "1"}),
            "objective_path": (("pass",), np.ones(3), {"units": "1"}),
            "component_totals": (("component",), np.ones(2), {"units": "counts"}),
        }
    )


def check(dataset: xr.Dataset) -> xr.Dataset:
    return check_dataset(dataset, "nmf", nav=("y", "x"), sig=("energy",))


def test_a_match_gains_its_prose() -> None:
    given = whole()
    assert check(given)["loadings"].attrs["long_name"] == "loadings"
    assert "long_name" not in given["loadings"].attrs


def test_mismatches_raise() -> None:
    with pytest.raises(InputError, match=r"dims \('x', 'y', 'component'\), expected \('y', 'x'"):
        check(whole().transpose("x", "y", ...))
    with pytest.raises(InputError, match="dtype int64, expected"):
        check(whole().assign(objective=((), 1, {"units": "1"})))
    with pytest.raises(InputError, match="units None, expected any unit"):
        check(whole().assign(loadings=whole()["loadings"].drop_attrs()))
    with pytest.raises(InputError, match="units 'counts', expected '1 per channel'"):
        check(whole().assign(components=whole()["components"].assign_attrs(units="counts")))
    with pytest.raises(InputError, match=r"unregistered variables \['extra'\]"):
        check(whole().assign(extra=1))
    with pytest.raises(InputError, match=r"missing variables \['loadings'\]"):
        check(whole().drop_vars("loadings"))


def test_a_name_has_one_meaning() -> None:
    known = registered("nmf")["loadings"]
    assert register(known) is known
    with pytest.raises(InputError, match="registered already"):
        register(Variable("nmf", "loadings", ("component",), "f", None, "something else"))
