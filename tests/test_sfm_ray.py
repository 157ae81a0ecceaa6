"""The engine on Ray: two machines give what one process gives, also where a worker dies in the middle."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
import ray

from lightglue.errors import InputError, LightGlueError
from lightglue.models.choice import Models
from lightglue.sfm.engines.choice import make_engine
from lightglue.sfm.engines.ray_address import check_address
from lightglue.sfm.engines.with_ray import RayEngine, _looked_up
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.match import MatchOptions, match
from lightglue.stores import FeatureStore, MatchStore

ROOT = Path(__file__).parents[1]
MODELS = Models("sift", 200, "cpu", False, matcher="nearest", thresholds={"ratio_threshold": 0.9})  # no weights


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes on this machine, with a processor each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=size)
    nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
    yield
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    image = cv2.imread(str(ROOT / "assets" / "montmartre_close.jpg"))
    for i in range(12):
        cv2.imwrite(str(folder / f"{i}.png"), image[10 * i : 10 * i + 200, 8 * i : 8 * i + 240])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


def run(photographs: Path, out: Path, engine: Any, matching: Any) -> tuple[Any, Any]:
    options = ExtractOptions(MODELS, {"resize": None})
    extracted = extract(photographs, out / "features", options, engine=engine)
    pairs = list(itertools.combinations(FeatureStore.open(out / "features").names(), 2))
    return extracted, match(out / "features", pairs, out / "matches.db", MatchOptions(MODELS), engine=matching)


def content(out: Path) -> tuple[Any, ...]:
    """All that the stores hold."""
    store = FeatureStore.open(out / "features")
    features = {name: store.get(name).digest for name in store.names()}
    matches = [
        (pair.name0, pair.name1, pair.matches.tolist(), pair.scores.tolist(), pair.digests)
        for pair in MatchStore.open(out / "matches.db").read()
    ]
    return store.settings, features, matches


@pytest.fixture(scope="module")
def of_one_process(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What the stores of the local engine hold."""
    out = tmp_path_factory.mktemp("local")
    run(photographs, out, make_engine(), make_engine())
    return content(out)


class Killing(RayEngine):
    """Kills a worker after the first result."""

    def run(self, work: Any, jobs: Any) -> Iterator[Any]:
        results = super().run(work, jobs)
        yield next(results)
        workers = [actor for actor in list_workers() if actor != os.getpid()]
        os.kill(workers[0], signal.SIGKILL)
        yield from results


def list_workers() -> list[int]:
    """The processes of this cluster's actors."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = place.read_bytes()
        except OSError:
            continue
        if b"ray::_Actor" in command and is_ours(int(place.parent.name)):
            found.append(int(place.parent.name))
    assert found
    return found


def is_ours(pid: int) -> bool:
    """Whether this process is among the ancestors of another."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_two_machines_give_what_one_process_gives_also_where_a_worker_is_killed_in_the_middle_of_matching(
    cluster, photographs, of_one_process, tmp_path
):
    engine = RayEngine()
    assert engine.actors is None
    extracted, matched = run(photographs, tmp_path / "ray", engine, Killing(actors=2))
    assert engine.count() == 2
    assert (extracted.extracted, matched.matched, matched.skipped) == (12, 66, ())
    assert [fault.name for fault in extracted.skipped] == ["broken.png"]
    assert content(tmp_path / "ray") == of_one_process


@dataclass(frozen=True)
class Deadly:
    """Squares numbers; the job of one of them kills its worker, once or each time."""

    folder: str
    fatal: int
    always: bool
    together: int = 3
    threads: int = 1

    def worker(self) -> Deadly:
        return self

    def read(self, job: int) -> int:
        return job

    def compute(self, job: int, read: int) -> tuple[int, int | str]:
        mark = Path(self.folder, "died")
        if job == self.fatal and (self.always or not mark.exists()):
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return job, job**2

    def failed(self, job: int, reason: str) -> tuple[int, int | str]:
        return job, reason

    def close(self) -> None:
        pass


def test_what_a_dead_worker_had_is_done_again(cluster, tmp_path):
    results = list(RayEngine(actors=2).run(Deadly(str(tmp_path), 7, always=False), range(20)))
    assert (tmp_path / "died").exists()
    assert sorted(results) == [(i, i**2) for i in range(20)]


def test_a_job_that_kills_every_worker_is_left_out_and_the_rest_done(cluster, tmp_path):
    results = dict(RayEngine(actors=2).run(Deadly(str(tmp_path), 7, always=True), range(12)))
    assert "3 workers died" in str(results.pop(7))
    assert results == {i: i**2 for i in range(12) if i != 7}


def test_a_folder_that_a_worker_does_not_see_is_one_clear_error(cluster, photographs, tmp_path):
    from lightglue.sfm.stages.extract import ExtractWork

    with pytest.raises(InputError, match="does not see the folder .*absent; put it on a file system that all"):
        list(RayEngine(actors=1).run(ExtractWork(str(tmp_path / "absent"), ExtractOptions(MODELS)), ["a.png"]))


@dataclass(frozen=True)
class Stillborn(Deadly):
    """Its workers die as they start."""

    def worker(self) -> Deadly:
        os._exit(1)


def test_workers_that_do_not_start_are_an_error_and_no_fault_of_the_jobs(cluster, tmp_path):
    with pytest.raises(LightGlueError, match="do not start; install the same versions"):
        list(RayEngine(actors=2).run(Stillborn(str(tmp_path), 7, always=True), range(12)))


def test_numbers_that_make_no_sense_are_refused(cluster):
    with pytest.raises(InputError, match="actors is 0"):
        RayEngine(actors=0)
    with pytest.raises(InputError, match="No machine of the cluster has 1 CPUs and 1 GPUs"):
        RayEngine(num_gpus=1).count()


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_is_there_is_found_by_the_probe() -> None:
    check_address(ray.get_runtime_context().gcs_address)
    check_address(_looked_up("auto"))


def test_an_address_where_nobody_answers_is_one_error_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    with pytest.raises(LightGlueError, match=rf"no Ray cluster at 127\.0\.0\.1:{port} \(.*refused"):
        check_address(f"127.0.0.1:{port}")
    with pytest.raises(LightGlueError, match=r"no Ray cluster at no\.such\.host\.invalid:6379"):
        check_address("no.such.host.invalid:6379")


def test_a_server_of_another_kind_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(server: socket.socket) -> None:
        with closing(server.accept()[0]) as connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        with pytest.raises(LightGlueError, match="something else answers"):
            check_address(f"ray://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
        monkeypatch.setattr("lightglue.sfm.engines.ray_address._PATIENCE_S", 0.2)
        with pytest.raises(LightGlueError, match="timed out"):  # accepts, and is still
            check_address(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["", "host", "host:port", "http://host:80", "host:99999", "1.2.3.4:"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="give HOST:PORT, ray://HOST:PORT or auto"):
        check_address(address)
