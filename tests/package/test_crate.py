"""The linked data of a package: valid by the community's validator, and saying what they should."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from emcube.package import names, publish
from emcube.package.archive import digest_of
from tests.package.conftest import DAY, Lab, members_of

VALIDATOR = Path(__file__).with_name("validate.py")


def validated(crate: Path, profile: str, severity: str = "REQUIRED") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(VALIDATOR), str(crate), profile, severity],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def graph(lab: Lab) -> dict[str, dict[str, Any]]:
    document = json.loads(members_of(lab.crate)[names.CRATE])
    return {entity["@id"]: entity for entity in document["@graph"]}


@pytest.mark.parametrize("profile", ["ro-crate-1.2", "process-run-crate"])
def test_a_package_is_valid(profile: str, lab: Lab) -> None:
    found = validated(lab.crate, profile)
    assert found["issues"] == []
    made = [check for check in found["checks"] if check.startswith(profile)]
    assert made, found["checks"]


def test_a_package_without_data_is_valid(lab: Lab, tmp_path: Path) -> None:
    addresses = ["https://example.org/map.zarr", "https://example.org/map%20one.bcf"]
    crate = publish(lab.result, tmp_path / "light.zip", address=addresses, figures=False)
    assert validated(crate, "process-run-crate")["issues"] == []


def test_the_validator_sees_what_is_wrong(lab: Lab, tmp_path: Path) -> None:
    members = members_of(lab.crate)
    document = json.loads(members[names.CRATE])
    for entity in document["@graph"]:
        if entity["@id"] == "#run":
            del entity["instrument"]
        if entity["@id"] == "./":
            del entity["datePublished"]
    members[names.CRATE] = json.dumps(document).encode()
    crate = tmp_path / "wrong.zip"
    with zipfile.ZipFile(crate, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    issues = validated(crate, "process-run-crate")["issues"]
    said = " ".join(issue["message"] for issue in issues)
    assert "instrument" in said
    assert "datePublished" in said


def test_every_file_is_described_and_hashed(lab: Lab, graph: dict[str, dict[str, Any]]) -> None:
    members = members_of(lab.crate)
    parts = {part["@id"] for part in graph["./"]["hasPart"]}
    assert {"result/", "input/cube.zarr/"} <= parts
    for name, data in members.items():
        if name.startswith(("result/", "input/")) or name in (names.CRATE, names.PREVIEW):
            continue
        assert name in parts
        assert graph[name]["contentSize"] == str(len(data)), name
        if name != names.MANIFEST:
            assert graph[name]["sha256"] == digest_of(data)


def test_the_run_is_described(lab: Lab, graph: dict[str, dict[str, Any]]) -> None:
    run = graph["#run"]
    assert run["@type"] == "CreateAction"
    assert run["result"] == {"@id": "result/"}
    assert {"@id": names.RECIPE} in run["object"]
    assert {"@id": "input/cube.zarr/"} in run["object"]
    assert run["startTime"] == lab.result.provenance["started"]
    assert run["agent"] == {"@id": "https://orcid.org/0000-0002-1825-0097"}
    seed = graph["#seed-nmf"]
    assert seed["value"] == str(lab.result.provenance["seeds"]["nmf"])
    assert run["instrument"] == {"@id": "pkg:pypi/emcube@0.1.0"}
    assert graph["pkg:pypi/emcube@0.1.0"]["softwareVersion"] == "0.1.0"
    assert graph["input/cube.zarr/"]["identifier"] == lab.result.provenance["input"]["digest"]
    assert graph["./"]["license"] == {"@id": "https://spdx.org/licenses/CC-BY-4.0"}
    assert graph["#b"]["affiliation"] == {"@id": "#c-d"}
    assert graph["./"]["datePublished"] == DAY


def test_every_reference_leads_to_an_entity(graph: dict[str, dict[str, Any]]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [value["@id"]] if set(value) == {"@id"} else []
        if isinstance(value, list):
            return [r for one in value for r in references(one)]
        return []

    outside = {"https://w3id.org/ro/crate/1.2", "https://w3id.org/ro/crate/1.1"}
    for entity in graph.values():
        for key, value in entity.items():
            for reference in references(value):
                assert reference in graph or reference in outside, (entity["@id"], key, reference)
