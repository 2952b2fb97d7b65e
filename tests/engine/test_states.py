"""States as bytes: the same bits and layout back, no code run, damage found."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from emcube.engine import Outcome, plan_blocks
from emcube.engine.states import MAGIC, UnknownKindError, copied, fingerprint, pack, unpack
from emcube.errors import StoreError
from emcube.models.noise import PoissonNoise

rng = np.random.default_rng(0)
BASE = rng.normal(size=(6, 8, 10))

ARRAYS = {
    "c": BASE,
    "fortran": np.asfortranarray(BASE),
    "axes swapped": BASE.transpose(1, 0, 2),
    "columns": BASE[:, :, 2:7],
    "every other": BASE[::2, ::-1, ::2],
    "broadcast": np.broadcast_to(BASE[0, 0], (4, 10)),
    "empty": np.empty((0, 3)),
    "scalar": np.array(2.5),
    "big endian": BASE.astype(">f4"),
    "bool": BASE > 0,
    "text": np.array(["a", "bcd"]),
    "dates": np.array(["2020-01-01", "NaT"], "M8[ns]"),
    "not finite": np.array([np.nan, np.inf, -0.0]),
}


def through(value: Any) -> Any:
    header, found = unpack(b"".join(pack({"name": "x"}, value)))
    assert header == {"name": "x"}
    return found


@pytest.mark.parametrize("back", [through, copied])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_keep_their_bits_and_their_layout(name: str, back: Any) -> None:
    array = ARRAYS[name]
    again = back({"a": array})["a"]
    assert again.dtype == array.dtype
    assert again.shape == array.shape
    assert again.tobytes() == array.tobytes()
    if array.size:
        assert again.strides == array.strides
    assert again.flags.writeable == array.flags.writeable
    assert not np.shares_memory(again, array)


def test_everything_else_comes_back_as_it_was() -> None:
    state = {
        "nothing": None,
        "numbers": (1, -(2**80), 0.1, float("nan"), float("-inf"), True),
        "numpy": [np.float32(0.1), np.int64(3), np.bool_(True)],
        ("a", 1): "text",
        "plan": plan_blocks((4, 5), 6, 1),
        "noise": PoissonNoise(),
    }
    found = through(state)
    assert list(found) == list(state)
    assert found["numbers"][:3] == state["numbers"][:3]
    assert repr(found["numbers"]) == repr(state["numbers"])
    assert [type(v) for v in found["numpy"]] == [np.float32, np.int64, np.bool_]
    assert found["numpy"] == state["numpy"]
    assert found["plan"] == state["plan"]
    assert type(found["noise"]) is PoissonNoise
    outcome = through(Outcome((BASE, 1), 3, True, [0.5, 0.25]))
    assert (outcome.n_rounds, outcome.converged, outcome.history) == (3, True, [0.5, 0.25])


@dataclass(frozen=True)
class Mine:
    x: int = 1


@pytest.mark.parametrize(
    "value", [Mine(), object(), {1, 2}, np.array([object()]), lambda: 1, np.zeros(10**6)[::50000]]
)
def test_other_kinds_are_not_kept(value: Any) -> None:
    with pytest.raises(UnknownKindError):
        pack({}, [value])


def test_damage_is_found_wherever_it_is() -> None:
    data = b"".join(pack({"name": "x"}, [BASE, "text"]))
    assert unpack(data)[1][1] == "text"
    for length in (0, 5, len(MAGIC), len(MAGIC) + 32, 100, len(data) - 1):
        with pytest.raises(StoreError):
            unpack(data[:length])
    for place in (0, len(MAGIC) - 2, len(MAGIC) + 3, len(MAGIC) + 33, 100, len(data) - 1):
        broken = bytearray(data)
        broken[place] ^= 1
        with pytest.raises(StoreError):
            unpack(bytes(broken))
    with pytest.raises(StoreError, match="not those that were written"):
        unpack(data + b"more")
    with pytest.raises(StoreError):
        unpack(pickle.dumps(BASE))


def sealed(text: str, data: bytes = b"") -> bytes:
    """A file of any text, with the right digest."""
    body = len(text.encode()).to_bytes(8, "little") + text.encode() + data
    return MAGIC + hashlib.blake2b(body, digest_size=32).digest() + body


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "pickle:Unpickler",
        "emcube.engine.states:unpack",
        "emcube.nowhere:X",
        "emcube.__main__:X",
        "emcube.cli.app:X",
        "emcube.engine.checkpoint:Path",
        "emcube.engine.states:dataclasses.Field",
        "emcube.engineering:X",
    ],
)
@pytest.mark.parametrize("tree", [{"object": "", "fields": {}}, {"named": "", "parts": []}])
def test_only_dataclasses_of_emcube_are_made(name: str, tree: dict[str, Any]) -> None:
    named = {key: name if part == "" else part for key, part in tree.items()}
    text = json.dumps({"header": {}, "tree": named})
    with pytest.raises(StoreError, match="not one of this emcube"):
        unpack(sealed(text))


def array_of(dtype: str, shape: str) -> str:
    node = f'{{"array": "{dtype}", "shape": {shape}, "strides": [0], "writeable": true}}'
    return f'{{"header": {{}}, "tree": {node}}}'


@pytest.mark.parametrize(
    "text",
    {
        "header": '{"header": "text", "tree": null}',
        "no items": array_of("|S0", "[1000000000000000]"),
        "long": array_of("<f8", "[1000000000000000]"),
        "negative": array_of("<f8", "[-1]"),
        "endless": array_of("<f8", "[1e999]"),
        "float": '{"header": {}, "tree": {"float": "0x1p99999"}}',
        "deep": '{"header": {}, "tree": ' + "[" * 200_000 + "]" * 200_000 + "}",
        "deep lists": '{"header": {}, "tree": ' + '{"list": [' * 900 + "null" + "]}" * 900 + "}",
        "number": '{"header": {}, "tree": 5}',
        "list": "[]",
        "many digits": '{"header": {}, "tree": {"int": "' + "9" * 5000 + '"}}',
    }.items(),
    ids=lambda item: item[0],
)
def test_odd_files_with_the_right_digest_are_refused(text: tuple[str, str]) -> None:
    with pytest.raises(StoreError, match="not one of this emcube"):
        unpack(sealed(text[1]))


def test_the_command_line_is_not_run_by_an_import() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import emcube.__main__; print('only imported')"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "only imported\n"


def test_fingerprints_are_the_same_in_every_process() -> None:
    code = (
        "import numpy as np; from emcube.engine.states import fingerprint;"
        "from emcube.models.noise import PoissonNoise;"
        "print(fingerprint(PoissonNoise(), np.arange(5.0), {'a': (1, 0.1, None)}, slice(1, 2)))"
    )
    mine = fingerprint(PoissonNoise(), np.arange(5.0), {"a": (1, 0.1, None)}, slice(1, 2))
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert found.stdout.strip() == mine


def test_fingerprints_tell_values_apart() -> None:
    values: list[Any] = [1, 1.0, True, "1", (1,), [1], np.int64(1), np.array([1]), np.array([1.0])]
    values += [(1, (2,)), ((1, 2),), None, Mine(1), Mine(2), PoissonNoise(), np.zeros((2, 3))]
    values += [np.zeros((3, 2)), {"a": 1}, {"a": 2}, range(3), np.sum]
    marks = [fingerprint(value) for value in values[:-1]]
    assert len(set(marks)) == len(marks)
    with pytest.raises(UnknownKindError):
        fingerprint(lambda: 1)
    with pytest.raises(UnknownKindError):
        fingerprint(values[-1])
