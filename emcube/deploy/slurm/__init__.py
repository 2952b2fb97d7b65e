"""``slurm``: workers in one Slurm allocation, and whole runs as one job.

Inside an allocation the workers start in it; outside, one job is submitted for them (see
`slurm_deployment`). ``emcube submit`` puts scheduler, workers and client into one job (see `job_script`).
"""

from __future__ import annotations

from emcube.deploy.slurm.cluster import slurm_deployment
from emcube.deploy.slurm.options import SlurmOptions
from emcube.deploy.slurm.queue import Job, Queue
from emcube.deploy.slurm.script import RunOfRecipe, job_script

__all__ = ["Job", "Queue", "RunOfRecipe", "SlurmOptions", "job_script", "slurm_deployment"]
