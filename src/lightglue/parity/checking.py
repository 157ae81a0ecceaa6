"""Compare an exported file with the torch network that it was made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from lightglue.matching.lightglue import LightGlue
from lightglue.parity.extractors import ExtractorTrial
from lightglue.parity.limits import limits_for
from lightglue.parity.opened import is_steps, models_in, open_model, read_model
from lightglue.parity.options import CheckOptions
from lightglue.parity.peak import peak_of_file, peak_of_torch
from lightglue.parity.pipelines import PipelineTrial
from lightglue.parity.report import Cost, Report, RuntimeReport
from lightglue.parity.structure import structure_faults
from lightglue.parity.trials import MatcherTrial, Trial
from lightglue_runtime.errors import ModelError
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.runtimes import find_runtime, installed
from lightglue_runtime.session import SessionOptions, usable_threads

__all__ = ["check"]


def check(
    path: str | os.PathLike[str],
    options: CheckOptions | None = None,
    *,
    matcher: LightGlue | None = None,
    **fields: Any,
) -> Report:
    """How an exported file differs from its network in torch, on photographs and at the edges, and what it costs.

    Args:
        path: a file of `lightglue export`, of any kind and format, or a folder of pieces or of several models.
        options: see `CheckOptions`; or its fields as keywords.
        matcher: what a matcher's file was made of, where that is in no file of weights.

    Returns a report whose `passed` says whether everything is within the limits of `lightglue.parity.limits`.

    Raises:
        ModelError: the file is missing, damaged, of another program or version, or the runtime is not there.
        InputError: options that make no sense, or weights that are not those that the file was made of.
        WeightsError, ImageError: weights or images cannot be had.
    """
    options, path = options or CheckOptions(**fields), Path(path).expanduser()
    if path.is_dir() and not is_steps(path):
        return _check_folder(path, options, matcher)
    file = read_model(path)
    names = installed() if options.runtime == "all" else [find_runtime(options.runtime)]
    threads = options.threads or usable_threads()
    with _torch_threads(threads):
        trial = _trial(file, options, matcher)
        expected = [trial.reference(case) for case in trial.cases]
        found = [_in_runtime(name, file, trial, expected, options, threads, alone=len(names) == 1) for name in names]
    return Report(
        file=str(path),
        bytes=_bytes(path),
        description=asdict(file.description),
        reference=trial.reference_name,
        threads=threads,
        structure=tuple(structure_faults(file)),
        runtimes=tuple(found),
    )


def _check_folder(folder: Path, options: CheckOptions, matcher: LightGlue | None) -> Report:
    """Of each model in a folder, such as a bundle's."""
    models = models_in(folder)
    if not models:
        raise ModelError(f"{folder} holds no model; `lightglue export bundle` writes such a folder.")
    parts = tuple(check(path, options, matcher=matcher) for path in models)
    features = ", ".join(dict.fromkeys(part.description["features"] for part in parts))
    return Report(
        file=str(folder),
        bytes=_bytes(folder),
        description={**parts[0].description, "kind": "bundle", "format": "-", "features": features},
        reference="; ".join(dict.fromkeys(part.reference for part in parts)),
        threads=parts[0].threads,
        structure=(),
        runtimes=(),
        parts=parts,
    )


def _bytes(path: Path) -> int:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files)


def _trial(file: ModelFile, options: CheckOptions, matcher: LightGlue | None) -> Trial:
    if file.description.kind == "matcher":
        return MatcherTrial(file, options, matcher)
    if file.description.kind == "extractor":
        return ExtractorTrial(file, options)
    if file.description.kind == "pipeline":
        return PipelineTrial(file, options)
    raise ModelError(f"{file.path} is a {file.description.kind}, which cannot be checked alone; give the whole model.")


def _in_runtime(
    name: str, file: ModelFile, trial: Trial, expected: list[Any], options: CheckOptions, threads: int, alone: bool
) -> RuntimeReport:
    """alone: no other runtime is checked; one among others that cannot open the file is a failure in the report."""
    about = file.description
    precision = about.precision
    limits = limits_for(about.kind, about.features, precision, dict(options.tolerance))
    try:
        opened = open_model(file.path, name, SessionOptions(threads))
    except ModelError as error:
        if alone:
            raise
        return RuntimeReport(name, precision, limits, (), (" ".join(str(error).split()),), None)
    subject = trial.subject(opened.session)
    differences, failures = [], []
    for case, reference in zip(trial.cases, expected, strict=True):
        try:
            differences.append(trial.compare(case, reference, subject(case), limits))
        except ModelError as error:
            failures.append(f"{case.name}: {' '.join(str(error).split())}")
    timed = options.rounds > 0 and not failures
    cost = _cost(name, file, trial, subject, options, threads) if timed else None
    return RuntimeReport(opened.runtime, file.description.precision, limits, tuple(differences), tuple(failures), cost)


def _cost(
    name: str, file: ModelFile, trial: Trial, subject: Callable[[Any], Any], options: CheckOptions, threads: int
) -> Cost:
    """Runs in turn, so that what else the machine does affects both."""
    case = trial.cases[0]
    times: dict[str, list[float]] = {"file": [], "torch": []}
    for _ in range(options.rounds):
        for which, run in (("file", subject), ("torch", trial.reference)):
            begin = perf_counter()
            run(case)
            times[which].append(1000 * (perf_counter() - begin))
    peak = torch_peak = None
    if options.memory:
        peak = peak_of_file(file.path, name, threads, trial.feeds(case))
        if request := trial.torch_request(case):
            torch_peak = peak_of_torch(request[0], threads, request[1])
    return Cost(trial.size(case), median(times["file"]), median(times["torch"]), options.rounds, peak, torch_peak)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
