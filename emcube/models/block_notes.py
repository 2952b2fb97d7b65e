"""What a pass over blocks leaves for the next one, beside blocks that stay in memory."""

from __future__ import annotations

import uuid
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from emcube.engine.memory import current_residency

if TYPE_CHECKING:
    from emcube.engine import Block, BlockSource

__all__ = ["BlockNotes", "KeptBlocks"]

Noted = TypeVar("Noted")


@dataclass(frozen=True)
class BlockNotes(Generic[Noted]):
    """Something small about each block, kept as far as the memory of a run goes.

    Notes lie with the resident blocks of the process that made them, and count as those do. They may be gone
    at any time, and another process has its own: who needs one must be able to do without.

    Parameters
    ----------
    kind : str
        What it is.
    """

    kind: str
    _name: ClassVar[str]

    def __post_init__(self) -> None:
        # Fits that run side by side in a process must not meet. No field: no answer depends on it.
        object.__setattr__(self, "_name", f"{self.kind}-{uuid.uuid4().hex}")

    def of(self, block: Block) -> Noted | None:
        """What was noted of a block, if it is still there."""
        residency = current_residency()
        return None if residency is None else residency.noted(self._name, block.id)

    def take(self, block: Block) -> Noted | None:
        """The same, to be changed: it is noted no longer."""
        residency = current_residency()
        return None if residency is None else residency.take_note(self._name, block.id)

    def note(self, block: Block, value: Noted) -> None:
        """Note something with `nbytes` in place of what was there, if there is room."""
        residency = current_residency()
        if residency is not None:
            residency.note(self._name, block.id, value)

    def forget(self) -> None:
        """Let all notes of this process go; workers keep theirs until the run ends."""
        residency = current_residency()
        if residency is not None:
            residency.forget(self._name)


@dataclass(frozen=True)
class KeptBlocks:
    """Blocks of another source with the same plan, those of them that stayed in memory.

    Parameters
    ----------
    source : BlockSource
    """

    source: InitVar[BlockSource]
    _token: ClassVar[str]

    def __post_init__(self, source: BlockSource) -> None:
        # No field: names of what lies in memory differ between the tries of a run, and no answer does.
        object.__setattr__(self, "_token", source.token)

    def of(self, block: Block) -> Block | None:
        """The one in the place of a block, if it is there."""
        residency = current_residency()
        return None if residency is None else residency.get(self._token, block.id)
