"""A process that runs jobs and kills itself in the middle of the first one.

Arguments: the address of MongoDB, and the name of the database.
"""

import asyncio
import os
import signal
import sys
from typing import ClassVar

from models import JobKind
from services.database import open_database
from services.jobs.handler import RunningJob
from tests.real.jobs_stage import make_runner


class Killing:
    """Saves a checkpoint, and is killed."""

    kind: ClassVar[JobKind] = JobKind.SEND

    async def run(self, job: RunningJob) -> None:
        """Do half of the job."""
        job.progress(completed=1, total=2)
        await job.save({"done": ["1.2.3"]})
        os.kill(os.getpid(), signal.SIGKILL)

    async def discard(self, job: RunningJob) -> None:
        """Nothing was made."""


async def main(url: str, name: str) -> None:
    """Run jobs until killed."""
    async with open_database(url, name) as database:
        await make_runner(database, Killing(), lease_seconds=1.5).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
