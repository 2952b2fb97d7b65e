"""Progress events of the engine, which are those of everything else, too (`emcube.feedback.events`)."""

from __future__ import annotations

from emcube.feedback.events import (
    Event,
    Listener,
    emit,
    listen,
    listen_here,
    read_event,
    write_progress,
)

__all__ = ["Event", "Listener", "emit", "listen", "listen_here", "read_event", "write_progress"]
