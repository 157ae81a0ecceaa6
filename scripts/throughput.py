r"""Seconds an image, pairs a second, and memory of extraction and matching, by processes and effort.

    python scripts/throughput.py PHOTOGRAPHS --images 200 2000
    python scripts/throughput.py PHOTOGRAPHS --images 2000 --distinct 200 --sample 120 --max-keypoints 2048 \
        --workers 1 2 --effort fast normal
    python scripts/throughput.py PHOTOGRAPHS --ceiling

The images are crops of the photographs under a folder, turned and tilted a little, 640 px wide, the same at each run.
Each image is matched with those that retrieval finds most like it. Each row is measured in a process of its own, so
that its peak of memory is its own: the sum of the proportional shares (PSS) of all its processes, which counts shared
pages once. With --seconds a row stops extracting and matching after as long; its figures are of what was done by then,
from the first result on, so that the start of the processes is not in them but in a column of its own.

The features of a size are extracted once more for each number of processes, and used again for each effort.

With --distinct only so many images are extracted, and their features lie in the store again and again under other names
until there are as many as --images; the pairs are those of the distinct images, for each repetition. With --sample each
row matches the same so many of all pairs, no two of one image as far as that goes, so that a store and a
list of pairs of the full size are measured in the time of few pairs.

--ceiling: how much two processes do that know nothing of each other, against one, in products of matrices and in
matching: what the cores of this machine give at most.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np

from lightglue.images import read_image
from lightglue.models.choice import Models
from lightglue.sfm.engines.choice import make_engine
from lightglue.sfm.retrieval.index import build_index
from lightglue.sfm.stages.extract import ExtractOptions, extract
from lightglue.sfm.stages.images import list_images
from lightglue.sfm.stages.match import MatchOptions, match
from lightglue.sfm.stages.pairs import Inputs, PairOptions, select_pairs
from lightglue.stores import FeatureStore, MatchStore, Source
from lightglue.workers.crew import ONE_THREAD

SIZE = (640, 480)  # px
COLUMNS = {
    "images": "{:,}",
    "effort": "{}",
    "workers": "{}",
    "s until the first": "{:.1f}",
    "extracted": "{:,}",
    "s an image": "{:.3f}",
    "pairs listed": "{:,}",
    "pairs": "{:,}",
    "pairs a s": "{:.2f}",
    "pairs a s and core": "{:.2f}",
    "CPU s a pair": "{:.3f}",
    "matches a pair": "{:.0f}",
    "MB, extraction": "{:.0f}",
    "MB, matching": "{:.0f}",
}


def make_images(photographs: Path, folder: Path, count: int) -> None:
    """`count` images of SIZE: neighbours in the list see the same part of a photograph."""
    names, _ = list_images(photographs)
    folder.mkdir(parents=True)
    group = 10  # views of one place
    image = None
    for i in range(count):
        rng = np.random.default_rng(i)
        place = np.random.default_rng((i // group, 1))
        if i % group == 0 or image is None:
            image = read_image(photographs / names[place.integers(len(names))])
        h, w = image.shape[:2]
        size = place.uniform(0.5, 0.9)
        left, top = place.uniform(0, 1 - size, 2) * (w, h)
        box = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * (size * w, size * h) + (left, top)
        corners = (box + rng.uniform(-0.06, 0.06, (4, 2)) * (w, h)).astype(np.float32)
        target = np.array([[0, 0], [SIZE[0], 0], SIZE, [0, SIZE[1]]], np.float32)
        view = cv2.warpPerspective(image, cv2.getPerspectiveTransform(corners, target), SIZE, flags=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{i:05}.jpg"), cv2.cvtColor(view, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


class Enough(Exception):  # noqa: N818  # no error
    """The time is over."""


@dataclass
class Limited:
    """An engine that ends after so many seconds of results."""

    engine: Any
    seconds: float
    first: float = 0.0  # s until the first result
    lasted: float = 0.0  # s from then on
    jobs: int = 0  # results after the first

    def run(self, work: Any, jobs: Iterable[Any]) -> Iterator[Any]:
        """See `lightglue.workers.work.Engine`."""
        begin = perf_counter()
        for result in self.engine.run(work, jobs):
            now = perf_counter() - begin
            if self.first:
                self.jobs, self.lasted = self.jobs + 1, now - self.first
            else:
                self.first = now
            yield result
            if self.lasted > self.seconds:
                raise Enough


class Memory:
    """The largest sum of the processes' shares of memory that was seen, MB."""

    def __init__(self) -> None:
        self.peak = 0.0

    def look(self) -> None:
        """Sum up now."""
        self.peak = max(self.peak, sum(map(_share, _family(os.getpid()))))


@contextmanager
def watched() -> Iterator[Memory]:
    """A `Memory` that looks each second."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            memory.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
        memory.look()


def _family(pid: int) -> Iterator[int]:
    """A process and those that it started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _share(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def copied(store: FeatureStore, folder: Path, count: int) -> FeatureStore:
    """A store of `count` images: those of another one, again and again."""
    if (folder / "store.json").exists():
        return FeatureStore.open(folder)
    names, full = store.names(), FeatureStore.open(folder, store.settings)
    for i in range(count):
        name = names[i % len(names)]
        full.put(f"{i // len(names):04}/{name}", store.get(name), Source(0, 0, "0"))
    return full


def sampled(pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """`count` of the pairs, the same at each run, of as many images as there can be."""
    order = np.random.default_rng(0).permutation(len(pairs))
    used: set[str] = set()
    alone, others = [], []
    for pair in (pairs[i] for i in order):
        (others if used.intersection(pair) else alone).append(pair)
        used.update(pair)
    return [*alone, *others][:count]


def measure(folder: Path, models: Models, options: argparse.Namespace) -> dict[str, Any]:
    """Extract and match the images of a folder, in this process and its workers."""
    names, _ = list_images(folder / "images")
    workers, engine = options.workers[0], options.engine
    chosen = make_engine("local", workers=workers) if engine == "local" else make_engine(engine)
    row: dict[str, Any] = {"images": len(names), "effort": models.effort, "workers": workers}
    store, limited = folder / f"features{workers}", Limited(chosen, options.seconds)
    with watched() as memory, suppress(Enough):
        extract(folder / "images", store, ExtractOptions(models, {"resize": None}), engine=limited)
    if limited.jobs:
        row |= {"extracted": limited.jobs, "s an image": limited.lasted / limited.jobs, "MB, extraction": memory.peak}
    names = FeatureStore.open(store).names()
    index = build_index(FeatureStore.open(store), folder / "retrieval.npz")
    asked = PairOptions(("retrieval",), retrieved=options.partners)
    pairs = select_pairs(names, asked, Inputs(retrieval=index)).pairs
    if options.distinct is not None:
        count = options.images[0]
        store = copied(FeatureStore.open(store), folder / "copies", count).folder
        repeats = range(-(-count // len(names)))
        there = set(FeatureStore.open(store).names())
        every = [(f"{i:04}/{name0}", f"{i:04}/{name1}") for i in repeats for name0, name1 in pairs]
        pairs = [pair for pair in every if there.issuperset(pair)]
        row |= {"images": count}
    row["pairs listed"] = len(pairs)
    if options.sample is not None:
        pairs = sampled(pairs, options.sample)
    limited, spent = Limited(chosen, options.seconds), _cpu_seconds()
    with watched() as memory, tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "matches.db"
        with suppress(Enough):
            match(store, pairs, out, MatchOptions(models), engine=limited)
        done = [len(pair.matches) for pair in MatchStore.open(out).read()]
    rate = len(done) * limited.jobs / (limited.jobs + 1) / max(limited.lasted, 1e-9)  # but for the first batch
    return row | {
        "s until the first": limited.first,
        "pairs": len(done),
        "pairs a s": rate,
        "pairs a s and core": rate / workers,
        "CPU s a pair": (_cpu_seconds() - spent) / max(1, len(done)),  # with the start of the processes
        "matches a pair": float(np.mean(done)),
        "MB, matching": memory.peak,
    }


def ceiling(seconds: float) -> None:
    """Print what two processes do against one."""
    for what in ("products", "matching"):
        command = [sys.executable, __file__, ".", "--work", what, "--seconds", str(seconds)]
        rates = []
        for count in (1, 2):
            environment = {**os.environ, **ONE_THREAD}
            running = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(count)
            ]
            told = [process.communicate()[0].split() for process in running]
            rates.append([sum(float(each[i]) for each in told) for i in (0, 1)])
        (one, own), (two, both) = rates
        print(
            f"{what}: {one:.2f} a s in one process, {two:.2f} in two: {two / one:.2f} times; "
            f"{both / own:.2f} times by the processors' time"
        )


def work(what: str, seconds: float) -> None:
    """Print how often a second something was done, of the clock and of the processor's time."""
    import torch

    if what == "products":
        a = torch.randn(2048, 256)
        b = torch.randn(256, 2048)
        step: Any = lambda: a @ b  # noqa: E731
    else:
        matcher = Models("aliked", 512, "cpu", False).load_matcher()
        generator = torch.Generator().manual_seed(0)
        both = [
            {
                "keypoints": torch.rand(1, 512, 2, generator=generator) * 600,
                "descriptors": torch.nn.functional.normalize(torch.randn(1, 512, 128, generator=generator), dim=-1),
                "image_size": torch.tensor([[640.0, 480.0]]),
            }
            for _ in range(2)
        ]
        step = lambda: matcher.match([(both[0], both[1])])  # noqa: E731
    with torch.inference_mode():
        for _ in range(3):
            step()
        count, begin, spent = 0, perf_counter(), process_time()
        while perf_counter() - begin < seconds:
            step()
            count += 1
    print(count / (perf_counter() - begin), count / (process_time() - spent))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown; an empty cell where nothing was measured, since it was there."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---:|" * len(COLUMNS)]
    for row in rows:
        cells = [form.format(row[name]) if name in row else "" for name, form in COLUMNS.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--partners", type=int, default=10)
    parser.add_argument("--features", default="aliked")
    parser.add_argument("--max-keypoints", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="local")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--effort", nargs="+", default=["normal"])
    parser.add_argument("--distinct", type=int, help="images that are extracted; the others are copies of these")
    parser.add_argument("--sample", type=int, help="pairs that are matched of all, the same in each row")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of extraction, and of matching, a row")
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # measure this one
    parser.add_argument("--work", help=argparse.SUPPRESS)  # do this
    options = parser.parse_args()
    if options.work:
        work(options.work, options.seconds)
    elif options.ceiling:
        ceiling(min(options.seconds, 20.0))
    elif options.folder is not None:
        models = Models(options.features, options.max_keypoints, options.device, effort=options.effort[0])
        print(json.dumps(measure(options.folder, models, options)))
    else:
        print(table(list(_rows(options))))


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for count in options.images:
        with tempfile.TemporaryDirectory() as temporary:
            make_images(options.photographs, Path(temporary) / "images", min(count, options.distinct or count))
            for workers in options.workers:
                for effort in options.effort:
                    own = ["--images", str(count), "--workers", str(workers), "--effort", effort, "--folder", temporary]
                    command = [sys.executable, *sys.argv, *own]
                    environment = {**os.environ, **ONE_THREAD}
                    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
                    row = json.loads(told.stdout.splitlines()[-1])
                    print(row, file=sys.stderr, flush=True)
                    yield row


if __name__ == "__main__":
    main()
