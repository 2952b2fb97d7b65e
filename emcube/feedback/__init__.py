"""What is told while work goes on: events for programs, bars for people.

Whatever takes its time says what it does (`events`), and a board (`board`) shows that on a terminal or in a
notebook, where somebody looks and wants it (`setting`).
"""

from __future__ import annotations

from emcube.feedback.setting import progress, quietly

__all__ = ["progress", "quietly"]
