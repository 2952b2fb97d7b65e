"""What `emcube catalog show` says of one entry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emcube.catalog import add
from emcube.cli import main
from tests.catalog.helpers import COMPLETE, spectrum


def test_show_of_an_entry_that_was_not_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lab.yaml"
    sha = "sha256:" + "1" * 64
    said = {**COMPLETE, "size": 123456789, "checksum": sha, "checksum_status": "published"}
    add(path, "https://host.example/a.bcf", name="a map", **said)
    assert main(["catalog", "show", str(path), "a map"]) == 0
    out = capsys.readouterr().out
    for told in (
        "Nickel and chromium discs",
        "license: CC-BY-4.0",
        "123456789 bytes",
        f"{sha} (as the source states it)",
        "address: https://host.example/a.bcf",
        "Curie, Marie (0000-0002-1825-0097)",
        f"emcube catalog fetch {path} 'a map'",
    ):
        assert told in out
    assert "--accept-digest" not in out
    assert main(["catalog", "show", str(path), "a map", "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["kind"], card["entry"]["kind"]) == ("entry", "file")
    add(path, "https://host.example/b.bcf", name="b")
    assert main(["catalog", "show", str(path), "b"]) == 0
    out = capsys.readouterr().out
    assert "checksum: none stated" in out
    assert "--accept-digest" in out


def test_show_says_what_the_catalog_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = tmp_path / "lab.yaml", spectrum(tmp_path / "point.msa", title="The file's")
    entry = add(path, file, license="CC-BY-4.0", elements=["Ni", "Cr"], title="Ours")
    assert main(["catalog", "show", str(path), "point"]) == 0
    out = capsys.readouterr().out
    for told in (
        "lab.yaml:point: Ours",
        "license: CC-BY-4.0",
        "elements: Ni, Cr",
        f"{entry.metadata['checksum']} (checked by whoever made the entry)",
        f"address: {file}",
        "(energy 4)",
        "keV (signal)",
    ):
        assert told in out
    assert "The file's" not in out
    file.write_text("no spectrum")
    assert main(["catalog", "show", str(path), "point"]) == 0
    out = capsys.readouterr().out
    assert "does not open: " in out
    assert "license: CC-BY-4.0" in out
