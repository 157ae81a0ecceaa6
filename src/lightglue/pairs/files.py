"""All that `lightglue match` does, as a function: from two image files, or their contents, to matches and files.

Nothing here is shared between calls but loaded models, which no call changes: threads may call at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from lightglue.errors import ImageNotFoundError, InputError
from lightglue.extractors.masks import read_mask
from lightglue.extractors.no_keypoints import likely_cause
from lightglue.extractors.options import ViewOptions
from lightglue.geometry.options import CALIBRATED, EstimatorOptions
from lightglue.images import AnyImage, contents_of, read_image, size_of
from lightglue.models.choice import Models
from lightglue.models.loaded import LoadedModels, load_models
from lightglue.pairs.cameras import known_camera
from lightglue.pairs.encoders import Shown, encode, encode_warp
from lightglue.pairs.match import match_pair
from lightglue.pairs.options import PairOptions
from lightglue.pairs.oriented import pixels_of
from lightglue.pairs.outputs import check_outputs, is_ending, warp_paths
from lightglue.pairs.postprocessing import without_doubtful
from lightglue.pairs.record import MatchedPair, geometry_numbers
from lightglue.pairs.words import texts_of
from lightglue.support.files import write_files
from lightglue.timing import Timeline, record, span
from lightglue.types import ExtractKeywords

__all__ = ["MatchedFiles", "match_files"]

Output = str | os.PathLike[str]


@dataclass(frozen=True, eq=False, repr=False)
class MatchedFiles:
    """Two matched images, and how it came about. Printed, it is the pair."""

    pair: MatchedPair  # without its matches where the images probably do not overlap
    names: tuple[str, str]  # of the images: their paths, or "A" and "B"
    models: LoadedModels
    timeline: Timeline
    options: PairOptions
    num_dropped: int | None = None  # matches that were dropped for want of overlap
    warnings: tuple[str, ...] = ()  # such as an image without keypoints, and why
    encoded: Mapping[str, bytes] = field(default_factory=dict)  # outputs that were named by an ending alone
    written: tuple[str, ...] = ()  # paths
    not_written: tuple[str, ...] = ()  # an alignment without a homography

    @property
    def seconds(self) -> dict[str, float]:
        """The time for loading images and models, for extraction, and for matching."""
        return {name: self.timeline.seconds(name) for name in ("load", "extraction", "matching")}

    def pruned(self) -> tuple[float, float] | None:
        """The shares of keypoints that the matcher dropped; None where it drops none."""
        found, matcher = self.pair.matches01, self.models.matcher
        done = self.pair.effort
        if done is not None and done.effort == "fast" and (done.geometry is not None or done.rejected is not None):
            return None  # few of the keypoints went through the matcher at all
        if "stop" not in found:
            return None
        return (
            _pruned_share(found["prune0"], found["stop"], matcher),
            _pruned_share(found["prune1"], found["stop"], matcher),
        )

    def summary(self) -> dict[str, Any]:
        """All that is known but the arrays of the pair, as JSON holds it."""
        pair, choice, pruned = self.pair, self.models.choice, self.pruned()
        found: dict[str, Any] = {
            "files": list(self.names),
            "features": choice.features,
            "matcher": choice.matcher,
            **({} if (weights := choice.weights_name) is None else {"weights": weights}),
            "device": str(choice.found_device()),
            "backend": self.models.backend,
            "precision": self.models.precision,
            "num_keypoints": [len(pair.keypoints0), len(pair.keypoints1)],
            "num_matches": len(pair.matches),
        }
        if pair.stop is not None:
            found["layers"] = int(self.models.matcher.conf.n_layers)
        if pruned is not None:
            found["pruned"] = list(pruned)
        if pair.effort is not None:
            found |= pair.effort.numbers()
        if self.num_dropped is not None:
            found |= {"min_overlap": self.options.min_overlap, "num_dropped": self.num_dropped}
        found["seconds"] = self.seconds
        found |= geometry_numbers(pair)
        found |= pair.numbers()
        if self.warnings:
            found["warnings"] = list(self.warnings)
        found["outputs"] = list(self.written)
        return found | ({"not_written": list(self.not_written)} if self.not_written else {})

    def texts(self) -> tuple[str, ...]:
        """What is written below a picture, after the number of matches."""
        return texts_of(self.summary())

    def __repr__(self) -> str:
        return str(self.pair)


def match_files(
    image0: AnyImage,
    image1: AnyImage,
    options: PairOptions | None = None,
    *,
    models: Models | LoadedModels | None = None,
    views: ViewOptions | None = None,
    output: Output | Sequence[Output] = (),
    warp: Output | None = None,
) -> MatchedFiles:
    """Match two images and write what was found: all that `lightglue match` does.

    Args:
        image0, image1: paths, the contents of files as bytes, open files, arrays (H, W, 3) RGB or (H, W), Pillow's
            images, or tensors (C, H, W) in [0, 1].
        options: rotation, overlap, refinement, geometry, cameras.
        models: which models; they are loaded once, when they are first used. Or those of `load_models`.
        views: in which sizes and parts the images are looked at.
        output: files to write, each in the format of its ending; an ending alone, such as ".json", gives the content
            of such a file as `encoded[".json"]`.
        warp: where the second image goes, aligned to the first by the homography, and a picture of both beside it; or
            an ending alone: `encoded["warp.png"]`, `encoded["warp-overlay.png"]`.

    Threads may call this at once. Nothing is written unless all files can be.

    Raises InputError for options that make no sense or do not go together, ImageError for an image that cannot be
    read, WeightsError for weights that cannot be had, StoreError for files that cannot be written.
    """
    options, views, models = options or PairOptions(), views or ViewOptions(), models or Models()
    _check_types(options, views, models, output)
    choice = models.choice if isinstance(models, LoadedModels) else models
    outputs = [output] if isinstance(output, (str, os.PathLike)) else list(output)
    paths = [Path(each) for each in outputs if not is_ending(each)]
    warp_path = None if warp is None or is_ending(warp) else Path(warp)
    sources = (image0, image1, options.mask0, options.mask1)
    inputs = [Path(each) for each in sources if isinstance(each, (str, os.PathLike))]
    check_outputs(paths, warp_path, inputs)
    options.check_models(choice)
    options.check_warp(warp)
    for path in inputs:
        if not path.exists():
            raise ImageNotFoundError(f"There is no image at {path}; check the path.")
    with record() as timeline:
        result, shown = _match((image0, image1), options, models, views, timeline)
    return _with_outputs(result, shown, outputs, warp)


def _check_types(options: Any, views: Any, models: Any, output: Any) -> None:
    kinds: dict[str, Any] = {"options": PairOptions, "views": ViewOptions, "models": (Models, LoadedModels)}
    for (name, kind), value in zip(kinds.items(), (options, views, models), strict=True):
        if not isinstance(value, kind):
            wanted = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
            raise InputError(f"{name} is {value!r:.80}; give a {wanted}.")
    outputs = output if isinstance(output, (list, tuple)) else [output]
    if not all(isinstance(each, (str, os.PathLike)) for each in outputs):
        raise InputError(f"output is {output!r:.80}; give a path, an ending such as '.json', or several in a list.")


def _match(
    images: Sequence[Any], options: PairOptions, models: Models | LoadedModels, views: ViewOptions, timeline: Timeline
) -> tuple[MatchedFiles, Shown]:
    names = [str(image) if isinstance(image, (str, os.PathLike)) else "AB"[i] for i, image in enumerate(images)]
    contents = contents_of(images)
    given = [contents[id(image)] for image in images]
    # Images and cameras come before the models: a mistyped name must not cost a download.
    pixels = [pixels_of(image, views.tile, stretch=views.stretch) for image in given]
    sizes = [size_of(image) for image in pixels]
    cameras = [options.camera0, options.camera1]
    if options.geometry in CALIBRATED:
        cameras = [known_camera(f"camera{i}", cameras[i], given[i], sizes[i]) for i in (0, 1)]
    with span("load"):
        loaded = models if isinstance(models, LoadedModels) else load_models(models)
    options.check_models(loaded.choice)  # published weights may have been fetched now, or others stand in for them
    masks = [
        None if mask is None else read_mask(_mask(mask), height, width, name)
        for mask, (width, height), name in zip((options.mask0, options.mask1), sizes, names, strict=True)
    ]
    estimator = EstimatorOptions(options.estimator, options.threshold, seed=options.seed)
    choice = loaded.choice
    pair = match_pair(
        loaded.extractor,
        loaded.matcher,
        pixels[0],
        pixels[1],
        mask0=masks[0],
        mask1=masks[1],
        auto_rotate=options.rotation_step if options.auto_rotate else False,
        refine=options.refine,
        geometry=options.geometry,
        camera0=cameras[0],
        camera1=cameras[1],
        estimator=estimator if options.geometry else None,
        effort="hard" if choice.effort == "hard" else "normal",  # the matcher of "fast" is one already
        max_seconds=options.max_seconds,
        **cast(ExtractKeywords, views.keywords()),
    )
    pair, dropped = without_doubtful(pair, options.min_overlap)
    seen, resize = pixels if views.stretch else given, views.keywords().get("resize")
    warnings = tuple(
        f"{name} has no keypoints: {likely_cause(image, mask, loaded.extractor, resize)}"
        for name, image, mask, keypoints in zip(names, seen, masks, (pair.keypoints0, pair.keypoints1), strict=True)
        if not len(keypoints)
    )
    result = MatchedFiles(pair, (names[0], names[1]), loaded, timeline, options, dropped, warnings)
    titles = Path(names[0]).name, Path(names[1]).name
    shown = Shown(pixels[0], pixels[1], titles, result.texts(), result.summary(), _threshold(loaded.matcher))
    return result, shown


def _threshold(matcher: Any) -> float:
    """The score that a matcher's matches exceed, as far as it says."""
    inner = getattr(matcher, "matcher", matcher)  # of effort "fast"
    return float(getattr(getattr(inner, "conf", None), "filter_threshold", None) or 0.0)


def _with_outputs(result: MatchedFiles, shown: Shown, outputs: Sequence[Output], warp: Output | None) -> MatchedFiles:
    """`result` with its outputs encoded, and written where they have a path."""
    encoded = {str(each): encode(result.pair, _ending(each), shown) for each in outputs if is_ending(each)}
    files = {Path(each): encode(result.pair, _ending(each), shown) for each in outputs if not is_ending(each)}
    missing: tuple[str, ...] = ()
    if warp is not None:
        paths = warp_paths(Path(f"warp{warp}" if is_ending(warp) else warp))
        estimate = result.pair.geometry
        if estimate is None or estimate.model is None:
            missing = tuple(map(str, paths))
        else:
            contents = encode_warp(shown, estimate.model, _ending(warp))
            for path, content in zip(paths, contents, strict=True):
                if is_ending(warp):
                    encoded[str(path)] = content
                else:
                    files[path] = content
    write_files(files)
    return replace(result, encoded=encoded, written=tuple(map(str, files)), not_written=missing)


def _ending(output: Output) -> str:
    return str(output) if is_ending(output) else Path(output).suffix


def _mask(mask: Any) -> Any:
    """A mask as `extract` takes it: the content of a file becomes an array."""
    is_content = isinstance(mask, (bytes, bytearray, memoryview)) or hasattr(mask, "read")
    return read_image(mask, grayscale=True) if is_content else mask


def _pruned_share(prune: Any, stop: int, matcher: Any) -> float:
    """The share of keypoints that were dropped: those that went through fewer layers than the others."""
    if not len(prune):
        return 0.0
    # Pruning an image, and counting its layers, may end at a certain number of keypoints.
    always = matcher.pruning_min_kpts(matcher.confidence_thresholds.device) < 0
    return float((prune < (stop if always else prune.max())).float().mean())
