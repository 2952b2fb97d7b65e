"""Every error is a builtin too, carries a hint, and pickles."""

from __future__ import annotations

import builtins
import pickle

import cloudpickle
import pytest

from emcube import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]
BUILTIN_BASES = {
    "AmbiguousSignalError": (OSError, KeyError),
    "BudgetError": (RuntimeError, MemoryError),
    "CatalogError": (LookupError,),
    "ConservationError": (RuntimeError,),
    "CubeError": (ValueError,),
    "EngineError": (RuntimeError,),
    "IncompleteError": (OSError,),
    "InputError": (ValueError,),
    "InterruptedRunError": (KeyboardInterrupt,),
    "MissingDependencyError": (ImportError,),
    "NotFittedError": (ValueError, AttributeError),
    "PackageError": (ValueError,),
    "PreemptedRunError": (KeyboardInterrupt,),
    "ReadError": (OSError,),
    "RecipeError": (ValueError,),
    "SelectionError": (ValueError,),
    "StoreError": (OSError,),
    "UnitsError": (ValueError,),
}


def test_every_class_in_the_module_is_public() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert found == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_root_and_builtin_bases(cls: type[errors.EmcubeError]) -> None:
    assert issubclass(cls, errors.EmcubeError)
    assert cls.__doc__
    if cls is errors.EmcubeError:
        return
    for base in BUILTIN_BASES[cls.__name__]:
        assert issubclass(cls, base)
        assert getattr(builtins, base.__name__) is base


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("hint", ["", "sort with cube.sortby('energy')"])
def test_pickles_whole(cls: type[errors.EmcubeError], pickler, hint: str) -> None:
    error = cls("energy must increase: channel 512 (301.2) < 511 (301.4)", hint=hint)
    again = pickle.loads(pickler.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.message == error.message
    assert again.hint == hint
    assert again.args == error.args


def test_message_ends_with_the_hint() -> None:
    assert str(errors.CubeError("what, where, got against expected")) == (
        "what, where, got against expected"
    )
    assert str(errors.CubeError("what", hint="do this")) == "what; do this"


def test_ambiguous_signal_keeps_its_names_and_its_plain_message() -> None:
    error = errors.AmbiguousSignalError(
        "the file holds 2 signals", names=["EDS", "EELS"], hint="name one"
    )
    again = pickle.loads(pickle.dumps(error))
    assert again.names == ["EDS", "EELS"]
    # KeyError alone would print the repr of its argument.
    assert str(again) == "the file holds 2 signals; name one"


def test_an_attribute_set_later_survives_pickling() -> None:
    error = errors.EngineError("worker lost")
    error.add_note("on host a")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["on host a"]
