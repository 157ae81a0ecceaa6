"""What a pair costs in training: CPU seconds, pairs a second, memory; by network, keypoints and threads.

python scripts/training_cost.py [--threads 1 2] [--keypoints 256 512] [--networks 9x256 6x192 4x128] [--steps 3]
                                [--cases plain train compile bfloat16]

Features are random: time depends on their number alone. "plain" is `LightGlueNetwork.forward` with a loss on its log
assignments, in the same run; "train" is what `lightglue train` does, "compile" and "bfloat16" with run.compile and
run.precision. "first" is the first step of them, with what is compiled. Each case is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

CASES = ("plain", "train", "compile", "bfloat16")


def measure(case: str, network: str, keypoints: int, threads: int, steps: int) -> dict[str, float]:
    """One case, in this process."""
    import numpy as np
    import torch

    from lightglue.matching.config import LightGlueConfig
    from lightglue.matching.network import LightGlueNetwork
    from lightglue.training.batches import Batch, padded
    from lightglue.training.options import LossOptions
    from lightglue.training.trainer import pair_losses

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers, width = map(int, network.split("x"))
    net = LightGlueNetwork(LightGlueConfig(input_dim=128, n_layers=layers, descriptor_dim=width))
    pairs = max(1, 1024 // keypoints)
    rows = 2 * pairs * keypoints
    order = np.random.default_rng(0).permutation(keypoints)
    back = np.argsort(order)
    half = keypoints // 2
    matches = [np.where(np.arange(keypoints) < half, order, -1)]
    matches.append(np.where(back < half, back, -1))
    batch = Batch(
        tuple(range(pairs)),
        (("a", "b"),) * pairs,
        (keypoints,) * (2 * pairs),
        torch.rand(rows, 2) * 2 - 1,
        torch.nn.functional.normalize(torch.randn(rows, 128), dim=1),
        torch.from_numpy(np.tile(np.concatenate(matches), pairs)),
    )

    def plain() -> None:
        first, second = padded(batch)
        for p in range(pairs):
            outputs = net(first.positions[p], second.positions[p], first.descriptors[p], second.descriptors[p])
            i = (first.matches[p] >= 0).nonzero()[:, 0]
            each = [o.log_assignment[i, first.matches[p][i]].mean() + o.log_assignment[:-1, -1].mean() for o in outputs]
            (-sum(each)).backward()

    def train() -> None:
        pair_losses(net, batch, LossOptions()).total.sum().backward()

    def compiled() -> None:
        pair_losses(net, batch, LossOptions(), is_padded=True).total.sum().backward()

    def bfloat16() -> None:
        pair_losses(net, batch, LossOptions(), products=torch.bfloat16).total.sum().backward()

    if case == "compile":
        for layer in net.transformers:
            layer.compile()
    run = {"plain": plain, "train": train, "compile": compiled, "bfloat16": bfloat16}[case]
    begin = time.perf_counter()
    run()
    first, times = time.perf_counter() - begin, []
    for _ in range(steps):
        net.zero_grad(set_to_none=True)
        cpu, begin = time.process_time(), time.perf_counter()
        run()
        times.append(((time.process_time() - cpu) / pairs, (time.perf_counter() - begin) / pairs))
    cpu, wall = min(times)[0], min(each[1] for each in times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s_per_pair": cpu, "pairs_per_s": 1 / wall, "peak_MB": peak, "first_s": first}


def main() -> None:
    """The table, a process a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keypoints", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--networks", nargs="+", default=["9x256"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["plain", "train"])
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        case, network, *numbers = args.one
        print(json.dumps(measure(case, network, *map(int, numbers))))
        return
    print("| network | keypoints | threads | | CPU s a pair | pairs/s | peak MB | first, s |\n" + 8 * "|---" + "|")
    for network in args.networks:
        for keypoints in args.keypoints:
            for threads in args.threads:
                for case in args.cases:
                    one = [case, network, str(keypoints), str(threads), str(args.steps)]
                    done = subprocess.run(
                        [sys.executable, __file__, "--one", *one], capture_output=True, text=True, check=True
                    )
                    found = json.loads(done.stdout)
                    print(
                        f"| {network} | {keypoints} | {threads} | {case} | {found['cpu_s_per_pair']:.2f} | "
                        f"{found['pairs_per_s']:.2f} | {found['peak_MB']:.0f} | "
                        f"{found['first_s']:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
