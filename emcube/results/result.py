"""A finished analysis: open it, look at it, plot it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from emcube.addresses import is_url, local_part
from emcube.errors import IncompleteError, StoreError
from emcube.results.digest import array_digest
from emcube.results.figures import ResultFigures
from emcube.results.tree import FIELDS, missing_chunks, nodes_of, read_root, require_known_format
from emcube.results.unfinished import progress_of, progress_text
from emcube.results.watched import WatchedStore

__all__ = ["Result", "open_result"]


@dataclass(frozen=True, eq=False, repr=False)
class Result(ResultFigures):
    """A whole analysis, lazily.

    Attributes
    ----------
    location : str
        Where it lies: a path or an address.
    tree : xarray.DataTree
        A node a step; the root holds attributes only.

    Examples
    --------
    >>> result = em.open_result("results/map")  # doctest: +SKIP
    >>> result["nmf"].components  # doctest: +SKIP
    """

    location: str
    tree: xr.DataTree = field(repr=False)

    @property
    def path(self) -> Path:
        """Folder of the result.

        Raises
        ------
        StoreError
            It lies behind an address.
        """
        if is_url(self.location):
            raise StoreError(
                f"the result at {self.location} has no folder of this machine: it lies behind an address",
                hint="copy it here whole (fsspec's get with recursive=True), and open the copy",
            )
        return Path(self.location)

    @property
    def run_id(self) -> str:
        """Identity of the run."""
        return str(self.tree.attrs["run_id"])

    @property
    def recipe(self) -> dict[str, Any]:
        """The normalised recipe, every default filled in."""
        return dict(self.tree.attrs["recipe"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Input, seeds, block layout, libraries, platform and times."""
        return dict(self.tree.attrs["provenance"])

    @property
    def complete(self) -> bool:
        """Whether the run was finished (False only where `open_result` was told to allow it)."""
        return self.tree.attrs["emcube"]["complete"] is True

    @property
    def progress(self) -> dict[str, Any]:
        """How far the run got: names of all ``steps`` and of the ``finished`` ones, what was ``running``,
        and what the latest ``checkpoint`` says of itself.
        """
        return progress_of(self.path, self.tree.attrs)

    def require_complete(self, what: str) -> None:
        """Refuse a result that was never finished, for work that needs a whole one.

        Parameters
        ----------
        what : str
            Who needs it, for the message ("report").

        Raises
        ------
        IncompleteError
            It was opened with ``allow_incomplete=True``, and is not complete.
        """
        if not self.complete:
            raise IncompleteError(
                f"{what} needs a whole result, and {self.location!r} was never finished: "
                f"{progress_text(self.progress)}",
                hint="run its recipe again to complete it",
            )

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps, in the order in which they ran."""
        named = (next(iter(step.values()))["name"] for step in self.recipe["steps"])
        return tuple(str(name) for name in named if name in self.tree.children)

    def __getitem__(self, step: str) -> xr.Dataset:
        """Variables of one step.

        Raises
        ------
        KeyError
            There is no such step.
        """
        if step not in self.tree.children:
            raise KeyError(f"{step!r} is not a step of this result; it has {list(self.steps)}")
        return self.tree[step].to_dataset()

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __contains__(self, step: object) -> bool:
        return step in self.tree.children

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the cubes of a run of several; empty for one cube."""
        group = self.tree.children.get(FIELDS)
        return () if group is None else tuple(map(str, self._field_names(group)))

    def _field_names(self, group: xr.DataTree) -> list[str]:
        named = [one["field"] for one in self.provenance["input"].get("fields", ())]
        return [name for name in named if name in group.children]

    def field(self, name: str) -> Result:
        """What a run of several cubes says of one of them, as a result of its own.

        Its steps are those of the run, with the pixels of this cube; figures and files are made of it as of
        any result.

        Raises
        ------
        KeyError
            There is no such field.
        """
        if name not in self.fields:
            raise KeyError(f"{name!r} is not a field of this result; it has {list(self.fields)}")
        tree = self.tree.children[FIELDS].children[name].copy()
        tree.attrs = dict(self.tree.attrs)
        return Result(f"{self.location.rstrip('/')}/{FIELDS}/{name}", tree)

    def verb(self, step: str) -> str:
        """What kind of step it is (``nmf``), whatever its name."""
        return str(self[step].attrs["emcube"]["verb"])

    def verify(self) -> dict[str, str]:
        """Read everything and compare with the digests noted when it was written.

        Returns
        -------
        dict
            Variable (``nmf/loadings``) to what is wrong; empty when all is well.

        Raises
        ------
        IncompleteError
            The run was never finished: what is missing was not noted.
        """
        import zarr

        self.require_complete("verify")
        wrong: dict[str, str] = {}
        # By the root's metadata: a web server does not list what it has.
        root: Any = zarr.open_group(self.location, mode="r") if is_url(self.location) else None
        for name, node in nodes_of(self.tree):
            expected = node.attrs["emcube"].get("digests", {})
            if root is None:
                group: Any = zarr.open_group(self.location, path=name, mode="r")
            else:
                group = root[name]
            arrays = dict(group.arrays())
            for key, digest in expected.items():
                if key not in arrays:
                    wrong[f"{name}/{key}"] = "missing"
                    continue
                try:
                    found = array_digest(arrays[key])
                except (OSError, RuntimeError, ValueError) as error:
                    wrong[f"{name}/{key}"] = f"cannot be read: {error}"
                    continue
                if found != digest:
                    wrong[f"{name}/{key}"] = "values differ from those that were written"
        return wrong

    def __repr__(self) -> str:
        state = "" if self.complete else ", incomplete"
        short = self.run_id.removeprefix("sha256:")[:12]
        return f"<Result {self.location!r}: {', '.join(self.steps)} (run {short}{state})>"

    def _repr_html_(self) -> str:
        from emcube._hooks import provided

        return str(provided("result_page")(self))


def open_result(path: str | Path, *, allow_incomplete: bool = False) -> Result:
    """Open a result that `run` has written.

    Parameters
    ----------
    path : path-like or URL
        Folder of the result, or its address (``https://...``, ``s3://...``).
    allow_incomplete : bool
        Open one that was never finished too, to see what is there.

    Returns
    -------
    Result

    Raises
    ------
    IncompleteError
        The run was never finished, or chunks have gone since.
    StoreError
        There is no result at `path`, or a newer emcube wrote it.

    Notes
    -----
    ``xarray.open_datatree(path, engine="zarr")`` reads the same tree without emcube.

    Examples
    --------
    >>> em.open_result("results/map")  # doctest: +SKIP
    """
    place = local_part(str(path))
    if is_url(place):
        from emcube.results.remote import open_remote_tree

        return Result(*open_remote_tree(place))
    path = Path(place)
    root = read_root(path)
    if root is None:
        raise StoreError(
            f"there is no result at {str(path)!r}"
            + ("" if path.exists() else ": the folder does not exist"),
            hint="open cubes with emcube.open; results come from emcube.run",
        )
    marker = root["emcube"]
    require_known_format(path, marker)
    complete = marker["complete"] is True
    if not complete and not allow_incomplete:
        raise IncompleteError(
            f"the result at {str(path)!r} was never finished: "
            f"{progress_text(progress_of(path, root))}",
            hint="run its recipe again to complete it, or look at what is there with "
            "open_result(path, allow_incomplete=True)",
        )
    tree = xr.open_datatree(
        # An unfinished result may still grow, a finished one must stay what it is.
        WatchedStore(path) if complete else str(path),  # type: ignore[arg-type]
        engine="zarr",
        chunks={},
        consolidated=complete,
        decode_timedelta=False,
    )
    if complete:
        _check_chunks(path, tree)
    return Result(str(path), tree)


def _check_chunks(path: Path, tree: xr.DataTree) -> None:
    """Refuse a result from which chunks have gone: zarr would read them as fill values."""
    for name, node in nodes_of(tree):
        for key, (found, expected) in missing_chunks(path / name, node.attrs["emcube"]).items():
            raise IncompleteError(
                f"{name}/{key} of the result at {str(path)!r} has {found} chunks, "
                f"{expected} were written",
                hint="copy the result again, or run its recipe again with --overwrite",
            )
