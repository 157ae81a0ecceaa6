"""The tables of docs/parity.md: every format, precision and runtime against torch.

    python scripts/export_table.py OUT [--only export parity times auc] [--auc DATA] [--baseline FILE.onnx ...]
    python scripts/export_table.py OUT --only tables --docs docs/parity.md

OUT gets the models, a JSON file for each result, and tables.md. What is there is not done again, so that a killed run
goes on with the same command; `nice` does no harm, as everything that is compared is run in turn.

export: each format and precision of ALIKED's matcher, and DISK's and XFeat's adaptive ones.
parity: `lightglue export check` of each file in each runtime.
times: milliseconds of torch, ONNX Runtime, OpenVINO and the baselines, in turn, round after round: medians, and medians
    and quartiles of each round's ratio to torch's float32, for 512, 1,024 and 2,048 keypoints, one thread and two.
auc: poses, homographies and marked points on the sets of DATA (manifests of `lightglue eval pairs`): the features of an
    image are extracted once for all matchers, each compared with torch's float32 by paired bootstrap.

--baseline names matchers of LightGlue-ONNX, made from the same weights: inputs keypoints (2, N, 2), normalised, and
descriptors (2, N, D); a name that ends in _N is for N keypoints alone. Those with early exits are opened as its own
command does.

bfloat16: torch computes in it only where the CPU has instructions for it, and so does OpenVINO; elsewhere they are left
out of the times. Accuracy does not depend on the instructions: for `auc` torch is told that there are some.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np
import torch

from lightglue import LightGlue
from lightglue.benchmark.machine import describe_machine
from lightglue.evaluation.compare import Difference, compare
from lightglue.evaluation.datasets.manifest import load_manifest
from lightglue.evaluation.records import Run, read_run
from lightglue.evaluation.run import Job, evaluate
from lightglue.evaluation.summary import summarize
from lightglue.export import write_matcher
from lightglue.images import load_image
from lightglue.models.choice import Models
from lightglue.parity import check
from lightglue.support.files import read_json, write_json
from lightglue.support.precision import cpu_has_fast_bfloat16
from lightglue_runtime.denormals import flushed_denormals
from lightglue_runtime.errors import LightGlueError
from lightglue_runtime.runtimes import open_session
from lightglue_runtime.session import SessionOptions

ROOT = Path(__file__).parents[1]
ASSETS, SHARED = ROOT / "assets", ROOT.parent / "shared" / "images"
PAIRS = {
    "sacre_coeur": (SHARED / "sacre_coeur1.jpg", SHARED / "sacre_coeur2.jpg"),
    "facade": (SHARED / "DSC_0410.JPG", SHARED / "DSC_0411.JPG"),
    "montmartre": (ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"),
}
FORMATS, PRECISIONS = ("adaptive", "fixed", "colmap", "opencv", "steps", "tensorrt"), ("f32", "f16", "int8")
ALSO = ("disk", "xfeat")  # feature types of which the adaptive file is looked at
FULL = {"depth_confidence": -1.0, "width_confidence": -1.0}
COUNTS, THREADS = (512, 1024, 2048), (1, 2)
SETS = ("planar15", "synth16", "tum18", "strecha_dev", "strecha_wide_dev", "temple18", "kusvod2")
HEADLINE = {
    "planar15": "corner_error/opencv@0.5 auc@3",
    "synth16": "corner_error/opencv@0.5 auc@3",
    "kusvod2": "mAA/opencv@0.5 mean",
}  # all others:
POSE = "pose_error/poselib@1 auc@5"
EXACT = "torch f32"
CONTROL_FLOW = ["MatMulAddFusion", "GatherSliceToSplitFusion"]  # LightGlue-ONNX switches them off for early exits


def once(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The result in a file, made if it is not there."""
    if not path.exists():
        content = dict(make())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**content, "machine": describe_machine(), "torch": torch.__version__})
        print(path.stem, flush=True)
    return read_json(path)


# -- export and parity -------------------------------------------------------------------------------------------------


def model_path(out: Path, features: str, format: str, precision: str) -> Path:
    """Where a model goes: a file, or of `steps` a folder."""
    return out / "models" / f"{features}-{format}-{precision}{'' if format == 'steps' else '.onnx'}"


def models(out: Path) -> Iterator[Path]:
    """Every model, written if it is not there."""
    wanted = [("aliked", format, precision) for format in FORMATS for precision in PRECISIONS]
    wanted += [(features, "adaptive", precision) for features in ALSO for precision in PRECISIONS]
    for features, format, precision in wanted:
        path = model_path(out, features, format, precision)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            matcher = LightGlue(features=features, pruning="tuned").eval()
            try:
                write_matcher(matcher, path, format=format, precision=precision)
            except LightGlueError as error:  # not every format has every precision
                print(f"{path.name}: {error}", flush=True)
                continue
            print(path.name, flush=True)
        yield path


def parity(out: Path, few: bool) -> None:
    """Check each model in the runtimes that it is for. few: on the package's photographs alone."""
    own = [image for name in ("sacre_coeur", "facade") for image in PAIRS[name] if image.exists() and not few]
    for path in models(out):
        name = path.name.removesuffix(".onnx")

        def run(path: Path = path) -> Mapping[str, Any]:
            return check(path, runtime="all", images=tuple(own), rounds=0, memory=False, threads=1).to_json()

        once(out / "parity" / f"{name}.json", run)


# -- times -------------------------------------------------------------------------------------------------------------


@cache
def features_of(pair: str, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The features of both images, `count` keypoints each."""
    extractor = Models("aliked", count, "cpu", mp=False).load_extractor()
    return tuple(extractor.extract(load_image(path)) for path in PAIRS[pair])


def baseline_run(path: Path, threads: int, pair: str, count: int, flush: bool) -> Callable[[], Any]:
    """A matcher of LightGlue-ONNX in ONNX Runtime, as its own command opens it; or with denormal numbers flushed."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads, settings.inter_op_num_threads = 4, threads, 1
    exits = b"LightGlueNaturalAdaptiveDepth" in path.read_bytes()
    session = onnxruntime.InferenceSession(
        str(path), settings, ["CPUExecutionProvider"], disabled_optimizers=CONTROL_FLOW if exits else None
    )
    keypoints, descriptors = [], []
    for features in features_of(pair, count):
        size = features["image_size"]
        keypoints.append((features["keypoints"] - size[:, None] / 2) / (size.max() / 2))
        descriptors.append(features["descriptors"])
    feeds = {"keypoints": torch.cat(keypoints).numpy(), "descriptors": torch.cat(descriptors).numpy()}

    def run() -> int:
        with flushed_denormals() if flush else nullcontext():
            return len(session.run(None, feeds)[0])

    return run


def runners(out: Path, baselines: Sequence[Path], threads: int, pair: str, count: int) -> dict[str, Callable[[], Any]]:
    """Name -> a run that returns the number of matches."""
    data = dict(zip(("image0", "image1"), features_of(pair, count), strict=True))
    found: dict[str, Callable[[], Any]] = {}

    def torch_run(matcher: Any) -> Callable[[], Any]:
        return lambda: len(matcher(data)["matches"][0])

    for depth, options in (("adaptive", {}), ("full", FULL)):
        for name, mp in (("f32", False), ("bf16", True)):
            if not mp or cpu_has_fast_bfloat16():
                matcher = LightGlue(features="aliked", pruning="tuned", mp=mp, **options).eval()
                found[f"torch {name} {depth}"] = torch_run(matcher)
    for runtime, precisions in (("onnx", PRECISIONS), ("openvino", ("f32", "bf16", "int8"))):
        for depth, format in (("adaptive", "adaptive"), ("full", "fixed")):
            for precision in precisions:
                path = model_path(out, "aliked", format, "f32" if precision == "bf16" else precision)
                computed = "bf16" if precision == "bf16" else "f32"
                try:
                    run = session_run(path, runtime, threads, computed, data)
                except (LightGlueError, OSError) as error:
                    print(f"{runtime} {precision} {depth}: {' '.join(str(error).split())[:200]}", flush=True)
                    continue
                found[f"{runtime} {precision} {depth}"] = run
    for path in baselines:
        if not path.stem[-1].isdigit() or path.stem.endswith(f"_{count}"):
            name = path.stem.removesuffix(f"_{count}")
            found[f"LightGlue-ONNX {name}"] = baseline_run(path, threads, pair, count, False)
            found[f"LightGlue-ONNX {name}, flushed"] = baseline_run(path, threads, pair, count, True)
    return found


def session_run(path: Path, runtime: str, threads: int, precision: str, data: Mapping[str, Any]) -> Callable[[], Any]:
    """One of our files in a runtime, inputs at hand."""
    from lightglue.parity.cases import PairCase
    from lightglue.parity.subjects import feeds_of
    from lightglue_runtime.model_file import ModelFile

    file = ModelFile.read(path)
    session = open_session(file, runtime, SessionOptions(threads, precision=precision))
    if session.precision != {"f32": "float32", "bf16": "bfloat16"}[precision]:
        raise LightGlueError(f"{session.runtime} computes in {session.precision}")
    feeds = feeds_of(file, PairCase("", data["image0"], data["image1"]))
    return lambda: int((session.run(feeds)["matches0"] >= 0).sum())


def times(
    out: Path, baselines: Sequence[Path], rounds: int, pair: str, of_threads: Sequence[int], counts: Sequence[int]
) -> None:
    """Everything in turn, for each number of threads and keypoints."""
    for threads in of_threads:
        for count in counts:

            def run(threads: int = threads, count: int = count) -> Mapping[str, Any]:
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    every = runners(out, baselines, threads, pair, count)
                    matches = {name: task() for name, task in every.items()}  # untimed: kernels are chosen
                    milliseconds: dict[str, list[float]] = {name: [] for name in every}
                    for _ in range(rounds):
                        for name, task in every.items():
                            begin = perf_counter()
                            task()
                            milliseconds[name].append(1000 * (perf_counter() - begin))
                return {"pair": pair, "threads": threads, "count": count, "ms": milliseconds, "matches": matches}

            once(out / "times" / f"{pair}-{threads}-{count}.json", run)


# -- poses, homographies and marked points -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Matching(Models):
    """ALIKED with one of the matchers that are compared."""

    file: str | None = None  # an exported one; None: torch
    runtime: str | None = None
    bfloat16: bool = False  # in torch, whatever this CPU has; in OpenVINO, where it has instructions
    extra: Mapping[str, Any] = field(default_factory=dict)

    def load_matcher(self) -> Any:
        """The matcher, torch tensors in and out."""
        if self.file is None:
            matcher = LightGlue(features="aliked", pruning="tuned", mp=self.bfloat16, **self.extra).eval()
            return _InBfloat16(matcher) if self.bfloat16 else matcher
        from lightglue_runtime.matcher import Matcher

        path, precision = Path(str(self.file)), "bf16" if self.bfloat16 else "f32"
        return _AsTensors(Matcher.open(path, self.runtime, threads=1, precision=precision))


class _InBfloat16:
    """A matcher whose products are bfloat16 on any CPU."""

    def __init__(self, matcher: LightGlue) -> None:
        self.matcher = matcher

    def __call__(self, data: Any) -> Any:
        with mock.patch("lightglue.support.precision.cpu_has_fast_bfloat16", return_value=True):
            return self.matcher(data)


class _AsTensors:
    """A matcher without torch behind the one with it."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher

    def __call__(self, data: Any) -> Any:
        both = ({key: value.numpy() for key, value in data[name].items()} for name in ("image0", "image1"))
        found = self.matcher.match(*both)
        arrays = ("matches0", "matches1", "matching_scores0", "matching_scores1")
        tensors: dict[str, Any] = {name: torch.from_numpy(found[name])[None] for name in arrays}
        tensors |= {name: [torch.from_numpy(found[name])] for name in ("matches", "scores")}
        return {**tensors, "stop": found["stop"]}


def methods(out: Path) -> dict[str, Mapping[str, Any]]:
    """Name -> fields of `Matching`. The first is what all others are compared with."""
    found: dict[str, Mapping[str, Any]] = {EXACT: {}, "torch bf16": {"bfloat16": True}}
    for precision in PRECISIONS:
        found[f"onnx {precision}"] = {"file": str(model_path(out, "aliked", "adaptive", precision)), "runtime": "onnx"}
    for precision, file in (("f32", "f32"), ("bf16", "f32"), ("int8", "int8")):
        if precision == "bf16" and not cpu_has_fast_bfloat16():
            continue  # OpenVINO refuses
        path = str(model_path(out, "aliked", "adaptive", file))
        found[f"openvino {precision}"] = {"file": path, "runtime": "openvino", "bfloat16": precision == "bf16"}
    found["onnx int8 full"] = {"file": str(model_path(out, "aliked", "fixed", "int8")), "runtime": "onnx"}
    found["torch f32 full"] = {"extra": FULL}
    return found


def auc(out: Path, data: Path, sets: Sequence[str], wanted: Sequence[str] | None) -> None:
    """Every method on every set, as far as it is not done."""
    torch.set_num_threads(1)
    for each in sets:
        benchmark = load_manifest(data / f"{each}.json")
        seen: dict[Path, Any] = {}  # an image is looked at once for all matchers
        for name, fields in methods(out).items():
            if wanted and name not in wanted:
                continue
            chosen = Matching("aliked", benchmark.protocol.max_keypoints, "cpu", mp=False, **fields)
            try:
                folder = out / "auc" / each / name.replace(" ", "-")
                done = evaluate(benchmark, Job(chosen), folder, about={"machine": describe_machine()}, seen=seen)
            except LightGlueError as error:
                print(f"{each} {name}: {' '.join(str(error).split())[:200]}", flush=True)
                continue
            print(each, name, f"{headline(done):.2f}", flush=True)


def headline(run: Run) -> float:
    """The one figure of a set, in percent."""
    wanted = HEADLINE.get(run.benchmark, POSE)
    return next(each.value for each in summarize(run).figures if each.name == wanted)


# -- tables ------------------------------------------------------------------------------------------------------------


def parity_table(out: Path) -> str:
    """A row for each file and runtime."""
    rows = ["| file | MB | runtime | matches kept | new | score, max | median | stop | within the limits |"]
    rows.append("|---|---:|---|---:|---:|---:|---:|---|---|")
    for path in sorted((out / "parity").glob("*.json")):
        found = read_json(path)
        for each in found["runtimes"]:
            rows.append(f"| {path.stem} | {found['bytes'] / 1e6:.1f} | {each['runtime']} | {_parity_cells(each)} |")
    return "\n".join(rows)


def _parity_cells(report: Mapping[str, Any]) -> str:
    """What is told of a file in a runtime: of photographs, and whether all cases are within the limits."""
    pairs = [each for each in report["differences"] if " - " in each["case"]]
    verdict = "yes" if not report["faults"] else f"{len(report['faults'])} faults: {report['faults'][0][:140]}"
    if not pairs:
        return f"| | | | | {verdict}"
    kept = [1 - each["missing"] / max(each["reference"], 1) for each in pairs]
    new = [each["new"] / max(each["found"], 1) for each in pairs]
    stops = ", ".join(f"{each['stop'][1]}/{each['stop'][0]}" for each in pairs if each["stop"][1] is not None)
    largest = (max(each[name] or 0 for each in pairs) for name in ("score_max", "score_median"))
    return f"{_shares(kept)} | {_shares(new)} | {' | '.join(f'{x:.1e}' for x in largest)} | {stops or '-'} | {verdict}"


def _shares(values: Sequence[float]) -> str:
    return " ".join(f"{100 * value:.1f}" for value in values)


def times_table(out: Path, pair: str) -> str:
    """A row for each runner, columns for threads and keypoints."""
    files = {(t, n): out / "times" / f"{pair}-{t}-{n}.json" for t in THREADS for n in COUNTS}
    found = {key: read_json(path)["ms"] for key, path in files.items() if path.exists()}
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    head = " | ".join(f"{n:,}, {t} thread{'s' if t > 1 else ''}" for t, n in found)
    rows = [f"| ms (x torch f32 of the same depth: median, quartiles) | {head} |", "|---|" + "---:|" * len(found)]
    for name in names:
        rows.append(f"| {name} | {' | '.join(_time(each, name) for each in found.values())} |")
    return "\n".join(rows)


def _time(ms: Mapping[str, Sequence[float]], name: str) -> str:
    if name not in ms:
        return ""
    depth = "full" if name.endswith(("full", "fixed")) else "adaptive"
    ratio = np.asarray(ms[f"{EXACT} {depth}"]) / np.asarray(ms[name])
    low, middle, high = np.percentile(ratio, (25, 50, 75))
    return f"{np.median(ms[name]):.0f} ({middle:.2f}, {low:.2f}-{high:.2f})"


def against_baseline_table(out: Path, pair: str) -> str:
    """How many times as fast as LightGlue-ONNX with early exits each of our adaptive ones is."""
    rows = ["| against LightGlue-ONNX | keypoints | threads | times as fast | quartiles |", "|---|---:|---:|---:|---|"]
    for t in THREADS:
        for n in COUNTS:
            path = out / "times" / f"{pair}-{t}-{n}.json"
            ms = read_json(path)["ms"] if path.exists() else {}
            for other in (name for name in ms if name.startswith("LightGlue-ONNX")):
                depth = "full" if other.endswith("fixed") else "adaptive"
                for name in (
                    name for name in ms if name.endswith(depth) and not name.startswith(("torch", "LightGlue"))
                ):
                    low, middle, high = np.percentile(np.asarray(ms[other]) / np.asarray(ms[name]), (25, 50, 75))
                    rows.append(f"| {name} : {other} | {n:,} | {t} | {middle:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(rows)


def auc_table(out: Path) -> str:
    """The headline of each set of torch's float32, and how much each other method differs."""
    names = [name for name in methods(out) if any((out / "auc").glob(f"*/{name.replace(' ', '-')}/run.json"))]
    sets = [each for each in SETS if any(name != EXACT and _run(out, each, name) for name in names)]
    rows = [f"| method | {' | '.join(sets)} |", "|---|" + "---:|" * len(sets)]
    for name in names:
        cells = []
        for each in sets:
            runs = [_run(out, each, which) for which in (EXACT, name)]
            if runs[0] is None or runs[1] is None:
                cells.append("")
            elif name == EXACT:
                cells.append(f"{headline(runs[0]):.1f}")
            else:
                [found] = [d for d in compare(runs[0], runs[1]).differences if _is_headline(each, d)]
                low, high = found.interval
                sure = "**" if found.verdict in ("better", "worse") else ""
                cells.append(f"{sure}{found.difference:+.1f}{sure} ({low:+.1f} to {high:+.1f})")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def beyond_noise(out: Path) -> str:
    """Every figure, not the headlines alone, in which a method is better or worse than torch's float32 beyond noise."""
    rows = [
        "| method | set | figure | float32 | it | difference | 95 % | verdict |",
        "|---|---|---|---:|---:|---:|---|---|",
    ]
    for name in methods(out):
        for each in SETS if name != EXACT else ():
            runs = [_run(out, each, which) for which in (EXACT, name)]
            if runs[0] is None or runs[1] is None:
                continue
            for d in compare(runs[0], runs[1]).differences:
                if d.verdict in ("better", "worse") and abs(d.difference) >= 0.01:  # of what is shown
                    low, high = d.interval
                    rows.append(
                        f"| {name} | {each} | {d.statistic.name} | {d.a:.2f} | {d.b:.2f} | {d.difference:+.2f} | "
                        f"{low:+.2f} to {high:+.2f} | {d.verdict} |"
                    )
    return "\n".join(rows)


def _run(out: Path, each: str, name: str) -> Run | None:
    folder = out / "auc" / each / name.replace(" ", "-")
    if not (folder / "run.json").exists():
        return None
    found = read_run(folder)
    return found if len(found.records) == len(found.pairs) else None


def _is_headline(each: str, difference: Difference) -> bool:
    return difference.statistic.name == HEADLINE.get(each, POSE)


def tables(out: Path, docs: Path | None, pair: str) -> None:
    """Write tables.md, and the tables between their marks in a document."""
    machine = describe_machine()
    made = f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['system']}, Python {platform.python_version()}"
    found = {
        "parity": parity_table(out),
        "times": times_table(out, pair),
        "baseline": against_baseline_table(out, pair),
        "auc": auc_table(out),
        "noise": beyond_noise(out),
        "machine": f"{made}, torch {torch.__version__}; {datetime.date.today().isoformat()}.",
    }
    (out / "tables.md").write_text("\n\n".join(f"## {name}\n\n{text}" for name, text in found.items()) + "\n")
    if docs is not None:
        text = docs.read_text()
        for name, table in found.items():
            begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
            if begin in text and end in text and table.count("\n") != 1:  # more than a head
                before, _, rest = text.partition(begin)
                text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
        docs.write_text(text)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", choices=("export", "parity", "times", "auc", "tables"))
    parser.add_argument("--auc", type=Path, metavar="DATA")
    parser.add_argument("--few", action="store_true", help="of parity: the package's photographs alone")
    parser.add_argument("--set", nargs="+", choices=SETS, default=SETS, help="of --auc alone")
    parser.add_argument("--method", nargs="+", help="of --auc alone")
    parser.add_argument("--baseline", type=Path, nargs="+", default=[], metavar="FILE.onnx")
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--keypoints", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pair", choices=PAIRS, default="sacre_coeur" if SHARED.is_dir() else "montmartre")
    parser.add_argument("--docs", type=Path, metavar="FILE.md")
    args = parser.parse_args()
    wanted = args.only or ["export", "parity", "times", *(["auc"] if args.auc else []), "tables"]
    if "export" in wanted:
        list(models(args.out))
    if "parity" in wanted:
        parity(args.out, args.few)
    if "times" in wanted:
        times(args.out, args.baseline, args.rounds, args.pair, args.threads, args.keypoints)
    if "auc" in wanted:
        if args.auc is None:
            sys.exit("--only auc needs --auc DATA")
        auc(args.out, args.auc, args.set, args.method)
    if "tables" in wanted:
        tables(args.out, args.docs, args.pair)


if __name__ == "__main__":
    main()
