"""The job script and what is checked before it is written; no Slurm is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from emcube.cli import main
from emcube.deploy.options import parse_options
from emcube.deploy.slurm import RunOfRecipe, SlurmOptions, job_script
from emcube.deploy.slurm.layout import host_of, share_of
from emcube.deploy.slurm.options import format_time
from emcube.deploy.slurm.queue import _parse
from emcube.errors import InputError
from tests.cli.conftest import make_folder

GIB = 2**30
PAGE = Path(__file__).parents[2] / "docs" / "slurm.md"


def options(**values: object) -> SlurmOptions:
    return parse_options(SlurmOptions, values, "test")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("2:30:00", 9000),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("1-12:30:05", 131_405),
        ("90min", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
    ],
)
def test_times_are_slurms(text: str, seconds: int) -> None:
    assert options(time=text).time == seconds


def test_times_are_written_as_slurm_writes_them() -> None:
    assert format_time(131_405) == "1-12:30:05"


@pytest.mark.parametrize("text", ["", "soon", "0", "30s", "-5", "1:2:3:4", "12-", "1 hour"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"time: got .*expected"):
        options(time=text)


@pytest.mark.parametrize(
    ("text", "mib"), [("64G", 65_536), ("64GiB", 65_536), ("64 GB", 61_035), ("2000M", 2000)]
)
def test_memory_has_a_unit(text: str, mib: int) -> None:
    assert options(memory=text).memory == mib


@pytest.mark.parametrize("text", ["64", "lots", "64 Q", "1M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"memory: got .*expected"):
        options(memory=text)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("--nodes=3", "give nodes instead"),
        ("-t 5", "give time instead"),
        ("--output=x", "set by emcube and must stay"),
        ("constraint=skylake", "not one line with one option"),
        ("--comment=a\nrm -rf x", "not one line with one option"),
        ("-C\ntouch x", "not one line with one option"),
    ],
)
def test_options_of_sbatch_that_cannot_be_given(extra: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        options(sbatch=[extra])


@pytest.mark.parametrize("name", ["partition", "account", "qos"])
def test_names_are_names(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: got"):
        options(**{name: "a b; rm"})


def test_script_is_a_shell_script_and_says_what_was_asked(tmp_path: Path) -> None:
    run = RunOfRecipe(tmp_path / "it's a recipe.yaml", tmp_path / "100% of it", overwrite=True)
    script = job_script(
        run,
        options(
            nodes=4,
            time="1-0",
            memory="64G",
            partition="big",
            account="lab",
            qos="long",
            sbatch=["--constraint=skylake"],
            setup=["module load python"],
            requeues=3,
        ),
        "/usr/bin/python3",
    )
    file = tmp_path / "job.sh"
    file.write_text(script)
    subprocess.run(["bash", "-n", file], check=True)
    lines = script.splitlines()
    assert lines[0] == "#!/bin/bash"
    for directive in (
        "--nodes=4",
        "--time=1-00:00:00",
        "--mem=65536M",
        "--partition=big",
        "--account=lab",
        "--qos=long",
        "--constraint=skylake",
        "--exclusive",
        "--signal=B:USR1@600",
        "--requeue",
        f'--output="{tmp_path}/100%% of it.logs/job-%j.log"',
    ):
        assert f"#SBATCH {directive}" in lines
    assert "requeues=3 " in script
    assert "--overwrite" in script
    # Modules are loaded before anything of emcube's runs, and may use variables that are not set.
    assert lines.index("module load python") < lines.index("set -u")


def test_a_node_is_shared_out() -> None:
    whole = share_of(64, 256 * GIB)
    assert (whole.workers, whole.threads) == (16, 4)
    assert whole.memory * 16 <= 254 * GIB
    small = share_of(1, 2 * GIB)
    assert (small.workers, small.threads, small.memory) == (1, 1, 3 * GIB // 2)
    assert share_of(8, 16 * GIB, workers=2).threads == 4
    assert share_of(2, 16 * GIB, workers=5).workers == 2


def test_one_node_needs_no_network() -> None:
    assert host_of(1) == "127.0.0.1"
    assert host_of(2, "ib0") == "ib0"
    assert host_of(2) != ""


def test_what_slurm_says_of_a_job_is_understood() -> None:
    waiting = _parse(
        7,
        "JobId=7 JobName=x JobState=PENDING Reason=Resources Requeue=1 Restarts=2 ExitCode=0:0 "
        "StartTime=2026-01-02T03:04:05 NodeList=(null)",
    )
    assert waiting.waiting
    assert not waiting.ended
    assert waiting.restarts == 2
    assert str(waiting) == "job 7: pending, reason Resources, expected start 2026-01-02T03:04:05"
    killed = _parse(8, "JobState=TIMEOUT Reason=TimeLimit Restarts=0 ExitCode=0:15 NodeList=n[1-2]")
    assert killed.ended
    assert killed.status == 143


def test_every_option_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, field in SlurmOptions.model_fields.items():
        assert f"`{name}`" in text, name
        assert field.description, name


def test_the_profile_on_the_page_is_valid() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for profile in tomllib.loads(block).values():
        assert profile.pop("kind") == "slurm"
        assert options(**profile).interface == "ib0"


# -------------------------------------------------------------------------- the command, without Slurm


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe beside its cube, in a place where Slurm's commands are not on the path."""
    make_folder(tmp_path)
    (tmp_path / "profiles.toml").write_text(
        '[cluster]\nkind = "slurm"\npartition = "big"\nnodes = 8\nsetup = ["module load python"]\n'
    )
    monkeypatch.setenv("EMCUBE_PROFILES", str(tmp_path / "profiles.toml"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_dry_run_shows_the_script_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    typed = ("submit", "recipe.yaml", "--nodes=2", "--time=2h", "--memory=64GiB", "--dry-run")
    assert main([*typed, "--profile=cluster"]) == 0
    shown = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n" in shown
    assert "#SBATCH --partition=big\n" in shown
    assert "\nmodule load python\n" in shown
    assert main([*typed, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["script"].startswith("#!/bin/bash\n")
    assert card["result"] == str(folder / "results" / "map")
    assert card["run_id"].startswith("sha256:")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--time=soon",), 2, "time: got 'soon'"),
        (("--memory=64",), 2, "memory: got '64'"),
        (('--out=a"b',), 2, "holds a quote"),
        (("--profile=nowhere",), 2, "expected a profile of the kind slurm (cluster)"),
        ((), 1, "sbatch, squeue, scontrol, scancel is not found"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    before = sorted(folder.rglob("*"))
    assert main(["submit", "recipe.yaml", *arguments]) == status
    assert said in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [("n_components: 5", "n_components: five", "line 5"), ("map.zarr", "no.zarr", "no.zarr")],
)
def test_a_wrong_recipe_or_a_missing_input_is_not_queued(
    folder: Path, capsys: pytest.CaptureFixture[str], was: str, becomes: str, said: str
) -> None:
    text = (folder / "recipe.yaml").read_text()
    (folder / "wrong.yaml").write_text(text.replace(was, becomes))
    assert main(["submit", "wrong.yaml", "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_cubes_are_for_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "map.zarr"]) == 2
    assert "a recipe (.yaml) is expected" in capsys.readouterr().err


def test_a_name_with_a_line_break_does_not_reach_the_shell(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x\ntouch INJECTED #.yaml"
    (folder / name).write_text((folder / "recipe.yaml").read_text())
    assert main(["submit", name, "--dry-run"]) == 2
    assert "holds a line break" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Müller 1/map", "tab\there", "it's $HOME `id`"])
def test_the_scheduler_file_is_found_whatever_the_folder_is_called(name: str) -> None:
    from emcube.deploy.options import split_where

    run = RunOfRecipe(Path("/scratch/recipe.yaml"), Path("/scratch") / name, False)
    script = job_script(run, options(), "/usr/bin/python3")
    lines = script.splitlines()
    wanted = [x for x in lines if x.startswith(("logs=", "place="))]
    shell = "\n".join([*wanted[:1], 'run="$logs/.run-7"', "SLURM_JOB_NUM_NODES=2", *wanted[1:]])
    said = subprocess.run(
        ["bash", "-c", f'{shell}\nprintf %s "$place"'],
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    ).stdout.decode()
    place, values = split_where(said)
    assert place == f"/scratch/{name}.logs/.run-7/scheduler.json"
    assert values == {"workers": "2", "timeout": "300"}
