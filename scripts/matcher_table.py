"""Where LightGlue's time goes on a CPU, what the machine could do at best, and this source against another one.

    python scripts/matcher_table.py features FILE
    python scripts/matcher_table.py profile FILE
    python scripts/matcher_table.py against FILE src OTHER/src --rounds 9

`features` extracts ALIKED keypoints of the published easy and difficult pair once, so that all sides match the same.
`profile` has a row for each kind of operation: how often, CPU time, share, GFLOP/s; above them the fastest product.
`against` runs both sources in processes of their own, in turn, and prints the median of the ratios of CPU times. Other
machines are imitated by the environment: ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

PAIRS = {"difficult": ("sacre_coeur1.jpg", "sacre_coeur2.jpg"), "easy": ("DSC_0411.JPG", "DSC_0410.JPG")}
KEYPOINTS = (512, 1024, 2048)
MODES = {"full": {"depth_confidence": -1, "width_confidence": -1}, "adaptive": {}}
Case = tuple[str, int, str]  # pair, keypoints, mode
CASES: list[Case] = [(pair, count, mode) for count in KEYPOINTS for mode in MODES for pair in PAIRS]


def write_features(file: Path, images: Path) -> None:
    """Both pairs with each number of keypoints."""
    import torch

    from lightglue import ALIKED
    from lightglue.utils import load_image

    found = {}
    for count in KEYPOINTS:
        extractor = ALIKED(max_num_keypoints=count, detection_threshold=0).eval()
        for pair, names in PAIRS.items():
            found[pair, count] = [extractor.extract(load_image(images / name)) for name in names]
    torch.save(found, file)


def matching(file: Path, mp: bool) -> Callable[[Case], dict[str, Any]]:
    """A function that matches a case, with one thread; with `mp` in reduced precision."""
    import torch

    from lightglue import LightGlue

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    features = torch.load(file)
    matchers = {name: LightGlue("aliked", pruning="tuned", mp=mp, **options).eval() for name, options in MODES.items()}

    def match(case: Case) -> dict[str, Any]:
        pair, count, mode = case
        image0, image1 = features[pair, count]
        found: dict[str, Any] = matchers[mode]({"image0": image0, "image1": image1})
        return found

    return match


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


# -- profile ---------------------------------------------------------------------------------------------------------


def ceiling() -> float:
    """GFLOP/s of the fastest of the products that a layer has, and of a large one."""
    import torch

    best = 0.0
    for rows, inputs, outputs in ((2048, 257, 768), (2048, 513, 512), (2048, 512, 256), (2048, 2048, 2048)):
        a, b, out = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.empty(rows, outputs)
        fastest = min(seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)) for _ in range(20))
        best = max(best, 2e-9 * rows * inputs * outputs / fastest)
    return best


def profile(file: Path, rounds: int, mp: bool) -> None:
    """A table for each number of keypoints and mode, of the difficult pair."""
    from torch.utils._python_dispatch import TorchDispatchMode

    match = matching(file, mp)
    times: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    work: defaultdict[str, float] = defaultdict(float)  # GFLOP

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            start = time.process_time()
            result = func(*args, **(kwargs or {}))
            spent = time.process_time() - start
            name, flop = func.overloadpacket.__name__, 0.0
            if name in ("mm", "addmm", "addmm_"):
                a, b = args[-2:]
                name, flop = f"{name} {b.shape[0]} x {b.shape[1]}", 2e-9 * a.numel() * b.shape[1]
            elif "scaled_dot_product" in name:
                name, flop = "attention", 4e-9 * args[0].numel() * args[1].shape[-2]
            times[name] += spent
            counts[name] += 1
            work[name] += flop
            return result

    print(f"the fastest product: {ceiling():.0f} GFLOP/s")
    for case in CASES:
        if case[0] == "easy":
            continue
        match(case)
        plain = statistics.median(seconds(lambda case=case: match(case)) for _ in range(rounds))
        for table in (times, counts, work):
            table.clear()
        with Operations():
            for _ in range(rounds):
                match(case)
        print(f"\n{case[1]} keypoints, {case[2]}: {plain * 1e3:.0f} ms")
        total = sum(times.values())
        for name in sorted(times, key=lambda name: -times[name])[:14]:
            rate = f"{work[name] / times[name]:6.0f} GFLOP/s" if work[name] else ""
            print(
                f"  {name:30s}{counts[name] // rounds:5d} x {times[name] / rounds * 1e3:8.1f} ms "
                f"{100 * times[name] / total:5.1f} % {rate}"
            )


# -- against another source --------------------------------------------------------------------------------------------


def serve(file: Path, mp: bool) -> None:
    """A case a line of stdin, an answer a line of stdout."""
    match = matching(file, mp)
    for line in sys.stdin:
        pair, count, mode = json.loads(line)
        start = time.process_time()
        found = match((pair, count, mode))
        spent = time.process_time() - start
        print(json.dumps([spent, found["stop"], found["matches"][0].tolist()]), flush=True)


def against(file: Path, sources: list[Path], rounds: int, keypoints: list[int], mp: bool) -> None:
    """Both sources in turn; each round gives a ratio."""
    workers = []
    for source in sources:
        environment = {**os.environ, "PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "serve", str(file), *["--mp"] * mp]
        workers.append(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )

    def ask(worker: subprocess.Popen[str], case: Case) -> Any:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps(case) + "\n")
        worker.stdin.flush()
        return json.loads(worker.stdout.readline())

    print(f"CPU ms, medians of {rounds} rounds in turn: {sources[0]}, {sources[1]}; ratio; matches of both")
    for case in (case for case in CASES if case[1] in keypoints):
        first = [ask(worker, case) for worker in workers]
        found: list[list[float]] = [[], []]
        for number in range(rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                found[side].append(ask(workers[side], case)[0] * 1e3)
        ratio = statistics.median(a / b for a, b in zip(*found, strict=True))
        same = len({tuple(m) for m in first[0][2]} & {tuple(m) for m in first[1][2]})
        most = max(len(first[0][2]), len(first[1][2]))
        middle = [statistics.median(times) for times in found]
        print(
            f"{case[1]:5d} {case[2]:9s} {case[0]:10s}{middle[0]:8.0f}{middle[1]:8.0f}{ratio:8.3f}{same:6d} of {most}",
            flush=True,
        )
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("features", "profile", "against", "serve"))
    parser.add_argument("file", type=Path, help="of the features")
    parser.add_argument("sources", type=Path, nargs="*", help="two folders that hold `lightglue`")
    parser.add_argument("--images", type=Path, default=Path("../shared/images"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keypoints", type=int, nargs="+", default=KEYPOINTS, help="of `against`: these cases only")
    parser.add_argument("--mp", action="store_true", help="in reduced precision")
    options = parser.parse_args()
    if options.what == "features":
        write_features(options.file, options.images)
    elif options.what == "profile":
        profile(options.file, options.rounds, options.mp)
    elif options.what == "serve":
        serve(options.file, options.mp)
    elif len(options.sources) == 2:
        against(options.file, options.sources, options.rounds, options.keypoints, options.mp)
    else:
        parser.error("against needs two sources")


if __name__ == "__main__":
    main()
