"""The work of a stage on a cluster of machines, with Ray (Moritz et al., OSDI 2018). The only module that imports it.

Actors hold the models and read images and features from a file system that all machines share; this process gives
out the jobs and writes what comes back. The results are those of the local engine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from lightglue.errors import InputError, LightGlueError
from lightglue.sfm.engines.ray_address import check_address
from lightglue.workers.local import pipelined
from lightglue.workers.work import ATTEMPTS, DIED, Work

__all__ = ["RayEngine"]

AHEAD = 2  # chunks that an actor has: one in hand, one that waits

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class RayEngine:
    """Actors on a cluster. Raises InputError for numbers that make no sense.

    Where Ray runs in this process already, it is used as it is.
    """

    address: str | None = None  # of a cluster, such as "auto"; None starts Ray on this machine
    num_cpus: float = 1  # of each actor
    num_gpus: float = 0  # of each actor
    actors: int | None = None  # by default as many as the cluster has room for

    def __post_init__(self) -> None:
        if self.num_cpus < 0 or self.num_gpus < 0 or not self.num_cpus + self.num_gpus:
            raise InputError(
                f"num_cpus is {self.num_cpus} and num_gpus {self.num_gpus}; give one of them, not below 0."
            )
        if self.actors is not None and self.actors < 1:
            raise InputError(f"actors is {self.actors}; give at least 1, or leave it out.")

    def run(self, work: Work[Job, Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The result of each job, as they are done. What a dead actor had in hand is given to another."""
        waiting = iter(jobs)
        first = list(islice(waiting, work.together))
        if not first:
            return
        self._connect()
        crew = _Crew(self, work)
        crew.again.append(_Chunk(first))
        try:
            yield from crew.results(waiting)
        finally:
            crew.dismiss()

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
        try:
            if self.address is None:
                ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **options)
            else:
                check_address(_looked_up(self.address))
                ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise LightGlueError(f"There is no Ray cluster at {self.address or 'this machine'}: {error}") from error

    def count(self) -> int:
        """How many actors there is room for, at least 1."""
        if self.actors is not None:
            return self.actors
        there = ray.cluster_resources()
        room = [there.get(key, 0) // need for key, need in (("CPU", self.num_cpus), ("GPU", self.num_gpus)) if need]
        if min(room) < 1:
            raise InputError(
                f"No machine of the cluster has {self.num_cpus} CPUs and {self.num_gpus} GPUs for an actor "
                f"({there.get('CPU', 0):.0f} CPUs and {there.get('GPU', 0):.0f} GPUs in all); ask for fewer."
            )
        return int(min(room))


def _looked_up(address: str) -> str:
    """What `auto` stands for, as far as Ray tells: it may be a cluster that has ended."""
    if address != "auto":
        return address
    try:
        from ray._private.services import get_ray_address_from_environment

        return str(get_ray_address_from_environment("auto", None))
    except (ImportError, TypeError):  # not among the names that Ray promises
        return os.environ.get("RAY_ADDRESS") or "auto"


@dataclass(frozen=True, eq=False)
class _Chunk:
    jobs: list[Any]
    deaths: int = 0  # of actors that had it


class _Crew:
    """Actors, and what each has in hand."""

    def __init__(self, engine: RayEngine, work: Work[Any, Any]) -> None:
        self.work = work
        kind = ray.remote(num_cpus=engine.num_cpus, num_gpus=engine.num_gpus, max_restarts=0)(_Actor)
        description = ray.put(work)  # type: ignore[no-untyped-call, unused-ignore]
        self.hire: Callable[[], Any] = lambda: kind.remote(description)
        self.actors = [self.hire() for _ in range(engine.count())]
        self.started = [actor.started.remote() for actor in self.actors]
        self.failures = 0  # of actors to start
        self.in_hand: dict[Any, tuple[_Chunk, int]] = {}  # by reference: a chunk, and which actor has it
        self.again: deque[_Chunk] = deque()  # to be given out before anything new

    def results(self, jobs: Iterator[Any]) -> Iterator[Any]:
        """Of all chunks that wait, and of all jobs."""
        while True:
            self._give_out(jobs)
            if not self.in_hand:
                return
            done, _ = ray.wait(list(self.in_hand), num_returns=1)
            chunk, index = self.in_hand[done[0]]
            try:
                results = ray.get(done[0])
            except RayActorError:
                yield from self._bury(index)
                continue
            except ObjectLostError:  # it was done, on a machine that is gone
                results = []
                self.again.append(chunk)
            except RayTaskError as error:
                if isinstance(error.cause, LightGlueError):
                    raise error.cause from None
                raise
            del self.in_hand[done[0]]
            yield from results

    def _give_out(self, jobs: Iterator[Any]) -> None:
        loads = [0] * len(self.actors)
        for _, index in self.in_hand.values():
            loads[index] += 1
        for _ in range(AHEAD):
            for index, load in enumerate(loads):
                if load < AHEAD and (chunk := self._next(jobs)) is not None:
                    self.in_hand[self.actors[index].run.remote(chunk.jobs)] = chunk, index
                    loads[index] += 1

    def _next(self, jobs: Iterator[Any]) -> _Chunk | None:
        if self.again:
            return self.again.popleft()
        some = list(islice(jobs, self.work.together))
        return _Chunk(some) if some else None

    def _bury(self, index: int) -> Iterator[Any]:
        """Replace a dead actor; what it had in hand is done again, each job by itself."""
        lost = [ref for ref, (_, where) in self.in_hand.items() if where == index]
        chunk, *waited = (self.in_hand.pop(ref)[0] for ref in lost)
        self.again.extend(waited)  # they are not to blame
        blameless = not self._had_started(index)
        self.actors[index] = self.hire()
        self.started[index] = self.actors[index].started.remote()
        if blameless:
            self.again.append(chunk)
        elif chunk.deaths + 1 < ATTEMPTS:
            self.again.extend(_Chunk([job], chunk.deaths + 1) for job in chunk.jobs)
        else:
            yield from (self.work.failed(job, DIED) for job in chunk.jobs)

    def _had_started(self, index: int) -> bool:
        """Whether a dead actor came as far as work. Raises LightGlueError where none does."""
        try:
            ray.get(self.started[index])
            return True
        except RayActorError as error:
            self.failures += 1
            if self.failures < ATTEMPTS:
                return False
            reason = " ".join(str(error).split())
            raise LightGlueError(
                f"Workers on the cluster do not start; install the same versions of lightglue, torch and Ray on all "
                f"machines. Ray says: {reason[-500:]}"
            ) from error

    def dismiss(self) -> None:
        """End all actors."""
        for actor in self.actors:
            ray.kill(actor)  # type: ignore[no-untyped-call, unused-ignore]


class _Actor:
    """Does chunks of jobs, with models that are loaded once."""

    def __init__(self, work: Work[Any, Any]) -> None:
        self.fault: LightGlueError | None = None
        try:
            self.worker = work.worker()
        except LightGlueError as error:  # raised here, it would look like an actor that died
            self.fault = error

    def started(self) -> bool:
        """Answered as soon as there are models."""
        return True

    def run(self, jobs: list[Any]) -> list[Any]:
        """The result of each job, in any order."""
        if self.fault is not None:
            raise self.fault
        return list(pipelined(self.worker, jobs))
