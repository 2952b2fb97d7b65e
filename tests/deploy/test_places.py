"""What may be asked for, profiles, and what is said of mistakes; starts nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import emcube as em
from emcube.deploy.kinds import KINDS, _named, resolve
from emcube.deploy.network import is_loopback, split_address
from emcube.deploy.options import Options, parse_options, split_where
from emcube.deploy.profiles import load_profiles, profile_files
from emcube.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("threads", "threads", {}),
        ("threads workers=3", "threads", {"workers": 3}),
        ("local workers=4 memory='2 GiB'", "local", {"workers": 4, "memory": 2**31}),
        ("local timeout=5min", "local", {"timeout": 300.0}),
        ("local timeout=00:02:30", "local", {"timeout": 150.0}),
        ("local dashboard=true tls=yes", "local", {"dashboard": True, "tls": True}),
        ("tls://host:8786", "address", {"address": "tls://host:8786"}),
        ("host.example:8786", "address", {"address": "host.example:8786"}),
        ("[::1]:8786", "address", {"address": "[::1]:8786"}),
        ("/shared/run/scheduler.json", "address", {"scheduler_file": "/shared/run/scheduler.json"}),
        ("auto", "auto", {}),
    ],
)
def test_places(text: str, kind: str, options: dict[str, Any]) -> None:
    wanted = resolve(text)
    assert wanted.kind.name == kind
    assert wanted.options.model_dump(mode="json", exclude_unset=True) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty text"),
        ("nowhere", "neither a kind .* nor a profile"),
        ("local four", "got 'four' where option=value is expected"),
        ("local workers='4", "closing quot"),
        ("local worker=4", "there is no option 'worker'"),
        ("local workers=0", "workers: got '0': input should be greater than 0"),
        ("local workers=many", "workers: got 'many'"),
        ("local memory=much", "memory: got 'much': 'much' is not a size in bytes"),
        ("local timeout=soon", "timeout: got 'soon': write seconds"),
        ("threads workers=2.5", "workers: got '2.5'"),
        ("slurms", "got 'slurms', which is neither .* did you mean 'slurm'"),
        ("jobqueue", "cluster: .*cores: .*memory: "),
        ("jobqueue cluster=pbs cores=3 memory=1GB threads=2", "3 cores do not divide"),
        ("jobqueue cluster=pbs cores=3 memory=1GB minimum=4 maximum=2", "maximum 2 is below"),
        ("jobqueue cluster=pbsx cores=3 memory=1GB", "cluster: got 'pbsx'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(text)


def test_the_message_lists_the_options() -> None:
    with pytest.raises(InputError, match=r"options are .*memory.*workers"):
        em.deploy("local", wrokers=4)
    with pytest.raises(InputError, match="got int, a text is expected"):
        em.deploy(4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address", ["http://host:80", "tcp://host", "inproc://a/1", "tcp://host:x"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InputError, match=r"tcp://host:port or tls://host:port expected"):
        em.deploy(address)


def test_a_scheduler_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no scheduler file"):
        em.deploy(str(tmp_path / "scheduler.json"))
    (tmp_path / "scheduler.json").write_text('{"id": 1}')
    with pytest.raises(InputError, match="is not a scheduler file: 'address'"):
        em.deploy(str(tmp_path / "scheduler.json"))
    with pytest.raises(InputError, match="either address or scheduler_file"):
        em.deploy("address")
    with pytest.raises(InputError, match="which is not encrypted"):
        em.deploy("tcp://127.0.0.1:1", credentials=str(tmp_path))


def test_the_module_is_the_function() -> None:
    import emcube.deploy
    import emcube.deploy.kinds

    assert em.deploy is emcube.deploy
    with emcube.deploy("threads") as deployment:
        assert deployment.kind == "threads"
        assert not deployment.closed
    assert deployment.closed
    deployment.close()


# ------------------------------------------------------------------------------------------- profiles


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The site's file and the user's, on Linux's usual paths below a folder."""
    monkeypatch.delenv("EMCUBE_PROFILES")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))
    site, user = profile_files()
    for file in (site, user):
        file.parent.mkdir(parents=True)
    return site, user


def test_the_users_profile_takes_the_place_of_the_sites(files: tuple[Path, Path]) -> None:
    site, user = files
    assert load_profiles() == {}
    site.write_text('[lab]\nkind = "local"\nworkers = 8\n[other]\nkind = "threads"\n')
    user.write_text('[lab]\nkind = "local"\nworkers = 2\nmemory = "1 GiB"\n')
    assert resolve("lab").options.workers == 2
    assert resolve("lab").profile == "lab"
    assert resolve("lab workers=3").options.workers == 3
    assert resolve("lab", {"memory": "5 GiB"}).options.memory == 5 * 2**30
    assert resolve("other").kind.name == "threads"
    with em.deploy("other") as deployment:
        assert deployment.about["profile"] == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind = \n", "is not a TOML file: .*line 1"),
        ("lab = 3", "profile 'lab' of .*: got 3, a table is expected"),
        ("[lab]\nworkers = 2", "profile 'lab' of .*: kind is None, expected one of threads"),
        ('[lab]\nkind = "dask"', "kind is 'dask'"),
        ('[lab]\nkind = ["local"]', "kind is \\['local'\\], expected one of threads"),
        ('[lab]\nkind = "local"\nwrokers = 2', "profile 'lab' of .*: there is no option 'wrokers'"),
    ],
)
def test_mistakes_in_profiles_are_named(files: tuple[Path, Path], text: str, message: str) -> None:
    files[1].write_text(text)
    with pytest.raises(InputError, match=message):
        resolve("lab")


def test_memory_without_a_unit_is_refused() -> None:
    with pytest.raises(InputError, match="8 bytes are too few for a process; write the unit"):
        resolve("local memory=8")


@pytest.mark.parametrize("address", ["http://[bad", "tcp://[x"])
def test_brackets_that_do_not_close(address: str) -> None:
    assert split_address(address)[1:] == ("", None)


def test_names_that_no_host_has() -> None:
    assert not is_loopback("a" * 70)
    assert not is_loopback(".")


def test_a_file_of_profiles_that_is_asked_for_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMCUBE_PROFILES", str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="EMCUBE_PROFILES: there is no file"):
        load_profiles()


def test_the_doctor_shows_profiles_and_what_is_wrong(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from emcube.doctor import examine, render

    lines = ['[lab]\nkind = "local"', '[bad]\nkind = "local"\nwrokers = 2', "[odd]\nkind = {x = 1}"]
    files[0].write_text("\n".join([*lines, '[threads]\nkind = "local"']))
    monkeypatch.setenv("EMCUBE_DEPLOY", "lab workers=3")
    report = examine()
    assert report["deploy"]["kind"] == "local"
    assert report["deploy"]["options"] == {"workers": 3}
    text = render(report)
    assert "deploy     local (EMCUBE_DEPLOY=lab workers=3)" in text
    assert "  lab: local" in text
    assert f"{files[1]} (not there)" in text
    # One wrong table does not take the others away.
    for fault in ("there is no option 'wrokers'", "kind is {'x': 1}", "the name is that of a kind"):
        assert sum(fault in line for line in report["advice"]) == 1
    monkeypatch.setenv("EMCUBE_DEPLOY", "nowhere")
    assert "deploy     NOT USABLE" in render(examine())


# ---------------------------------------------------------------------------------------------- page


def test_profiles_on_the_page_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for i, text in enumerate(blocks):
        file = tmp_path / f"{i}.toml"
        file.write_text(text)
        monkeypatch.setenv("EMCUBE_PROFILES", str(file))
        for name in tomllib.loads(text):
            assert resolve(name).profile == name


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "slurm"])
def test_every_option_is_on_the_page(kind: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"`{kind}`" in text
    model: type[Options] = _named(KINDS[kind].options)
    for name, field in model.model_fields.items():
        assert f"`{name}`" in text, f"{kind}: {name}"
        assert field.description, f"{kind}: {name}"


def test_words_are_split_as_a_shell_does() -> None:
    assert split_where("a b='c d' e=") == ("a", {"b": "c d", "e": ""})
    with pytest.raises(InputError, match="deploy 'x': timeout"):
        parse_options(Options, {"timeout": -1}, "deploy 'x'")
