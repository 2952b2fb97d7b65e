"""A Zarr store that notices when what it was opened on is no longer there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from emcube.errors import StoreError
from emcube.store.chunks import edition_of

__all__ = ["WatchedStore"]


class WatchedStore(LocalStore):
    """A folder, read only, as long as it is the one that was opened.

    Zarr reads a chunk that is gone as fill values, and a chunk of another result in the same place as if it
    were of this one. Here both are errors.

    Parameters
    ----------
    root : Path
        Folder of a finished result.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, read_only=True)
        self.edition = edition_of(str(root))

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (str(self.root), self.edition)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        """Read a file of the folder.

        Raises
        ------
        StoreError
            The folder was replaced or removed since it was opened.
        """
        if edition_of(str(self.root)) != self.edition:
            raise StoreError(
                f"{self.root} was replaced or removed since it was opened", hint="open it again"
            )
        return await super().get(key, *args, **kwargs)


def _again(root: str, edition: tuple[int, int] | None) -> WatchedStore:
    store = WatchedStore(Path(root))
    store.edition = edition
    return store
