"""The engine moves kernels over blocks. It knows nothing of spectra or labels.

An algorithm is a `Sweep`: start, map, combine, step. `run_sweep` is the only loop; `map_blocks`
writes per-pixel output. Threads of this process run the tasks unless a dask.distributed client is
active.
"""

from __future__ import annotations

from emcube.engine.chained import ChainedPlan, ChainedSource
from emcube.engine.checkpoint import Checkpoints, checkpointing
from emcube.engine.loop import (
    ArrayTarget,
    Target,
    Writing,
    ZarrTarget,
    load_block,
    map_blocks,
    project_memory,
    run_sweep,
    run_sweeps,
)
from emcube.engine.memory import format_bytes, memory_budget, resident
from emcube.engine.plan import BlockPlan, plan_blocks
from emcube.engine.progress import Event, listen
from emcube.engine.source import (
    ArraySource,
    Block,
    BlockSource,
    DaskSource,
    MappedSource,
    SparseSource,
    StoreSource,
)
from emcube.engine.stopping import request_stop, stop_on_signals
from emcube.engine.sweep import Outcome, RngKey, Sweep
from emcube.engine.threads import use_threads

__all__ = [
    "ArraySource",
    "ArrayTarget",
    "Block",
    "BlockPlan",
    "BlockSource",
    "ChainedPlan",
    "ChainedSource",
    "Checkpoints",
    "DaskSource",
    "Event",
    "MappedSource",
    "Outcome",
    "RngKey",
    "SparseSource",
    "StoreSource",
    "Sweep",
    "Target",
    "Writing",
    "ZarrTarget",
    "checkpointing",
    "format_bytes",
    "listen",
    "load_block",
    "map_blocks",
    "memory_budget",
    "plan_blocks",
    "project_memory",
    "request_stop",
    "resident",
    "run_sweep",
    "run_sweeps",
    "stop_on_signals",
    "use_threads",
]
