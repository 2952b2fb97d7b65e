"""Who sees bars: people who look on, and those who ask for them; never a pipe."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import emcube as em
from emcube.errors import InputError
from emcube.feedback import quietly, setting
from emcube.feedback.setting import VARIABLE, surface, wanted


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "is_terminal", lambda stream: True)
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.delattr(sys, "ps1", raising=False)


def in_shell(monkeypatch: pytest.MonkeyPatch, **shell: Any) -> None:
    found = SimpleNamespace(get_ipython=lambda: SimpleNamespace(**shell))
    monkeypatch.setitem(sys.modules, "IPython", found)


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    monkeypatch.setitem(sys.modules, "IPython", None)
    for show in (True, False, "auto"):
        with em.progress(show):
            assert surface() is None
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    with em.progress(True):
        assert surface() is None


@pytest.mark.usefixtures("terminal")
def test_scripts_ask_for_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert surface() is None
    with em.progress():
        assert surface() == "terminal"
        with em.progress(False):
            assert surface() is None
        assert surface() == "terminal"
    assert surface() is None
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert surface() == "terminal"
    em.progress(False)  # a statement holds from then on
    assert surface() is None
    em.progress("auto")
    assert surface() == "terminal"


def test_notebooks_have_bars_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    in_shell(monkeypatch, kernel=object())
    assert surface() == "notebook"
    with em.progress(False):
        assert surface() is None
    in_shell(monkeypatch)  # IPython on a terminal
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert surface() == "terminal"


@pytest.mark.usefixtures("terminal")
def test_the_environment_sets_it_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("on", "terminal"), (" 1 ", "terminal"), ("OFF", None), ("auto", None)):
        monkeypatch.setenv(VARIABLE, text)
        assert surface() == expected
        with em.progress(True):
            assert surface() == "terminal"
    assert wanted(True) is True
    monkeypatch.setenv(VARIABLE, "off")
    assert wanted(True) is False
    monkeypatch.setenv(VARIABLE, "loud")
    with pytest.raises(InputError, match="'loud', expected on, off or auto"):
        surface()


def test_other_words_are_refused() -> None:
    for wrong in ("on", 1, None):
        with pytest.raises(InputError, match="expected True, False or 'auto'"):
            em.progress(wrong)  # type: ignore[arg-type]


@pytest.mark.usefixtures("terminal")
def test_a_thread_may_be_quiet_alone() -> None:
    seen: list[str | None] = []
    with em.progress(), quietly():
        assert surface() is None
        other = threading.Thread(target=lambda: seen.append(surface()))
        other.start()
        other.join()
    assert seen == ["terminal"]


def test_it_says_what_it_is() -> None:
    with em.progress(False) as off:
        assert repr(off) == "<progress bars: off>"
