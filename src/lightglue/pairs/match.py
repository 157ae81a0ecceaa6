"""From two images to matches in one call: extract, match, unpack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from lightglue.errors import InputError
from lightglue.geometry.options import EstimatorOptions, Geometry
from lightglue.images import AnyImage, contents_of
from lightglue.matching.coarse_to_fine import CoarseToFine
from lightglue.matching.effort import Effort, check_effort
from lightglue.pairs.hard.attempt import Attempt
from lightglue.pairs.hard.options import MAX_SECONDS, check_max_seconds
from lightglue.pairs.in_processes import PairsWork, match_in_processes
from lightglue.pairs.oriented import OrientedImage, pair_of, pixels_of
from lightglue.pairs.postprocessing import PostProcessing
from lightglue.pairs.record import MatchedPair
from lightglue.pairs.rotation import Probes, angles_of, find_angle
from lightglue.timing import span
from lightglue.types import Extractor, Matcher, PairMatcher
from lightglue.workers.engine import ProcessEngine

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lightglue.types import ExtractKeywords

__all__ = ["match_pair", "match_pairs"]


def match_pair(
    extractor: Extractor,
    matcher: Matcher,
    image0: AnyImage,
    image1: AnyImage,
    device: str | torch.device = "cpu",
    *,
    mask0: Any = None,
    mask1: Any = None,
    auto_rotate: bool | int = False,
    refine: bool = False,
    geometry: Geometry | None = None,
    camera0: Any = None,
    camera1: Any = None,
    estimator: EstimatorOptions | None = None,
    effort: Effort = "normal",
    max_seconds: float | None = MAX_SECONDS,
    **preprocess: Unpack[ExtractKeywords],
) -> MatchedPair:
    """Match two images.

    Args:
        image0, image1: (3, H, W) or (1, H, W) tensors in [0, 1], where the models are; or image files, as paths, bytes
            or open files; or arrays (H, W, 3) RGB or (H, W), uint8 or uint16 (of what `cv2.imread` gives, which is
            BGR, `image[..., ::-1]`); or Pillow's images, as they are without EXIF.
        device: where the results go.
        mask0, mask1: where in each image keypoints may lie: (H, W) bool, or an image file that is black elsewhere.
        auto_rotate: find out by which multiple of 90 degrees, or of this many, the second image is rotated against
            the first, and match it upright.
        refine: move the matched points to a fraction of a pixel, by aligning the images around them.
        geometry: also estimate a "homography", "fundamental" or "essential" matrix, or the "relative_pose".
        camera0, camera1: for the last two, K (3, 3), fx, fy, cx, cy, a `pycolmap.Camera` of each image, or "auto":
            from EXIF, for which pycolmap is needed, where the image is a file with one, else guessed;
            `matches01["cameras"]` says which.
        estimator: how to estimate; None for PoseLib at 1 px, for homographies 2.
        effort: "fast" matches the strongest keypoints first, and all others guided by these where the pair is easy
            (`lightglue.matching.coarse_to_fine`). "hard" goes on where plain matching finds little: with simulated
            views, other features, and the images warped onto each other; the keypoints are then the ends of its
            matches (`lightglue.pairs.hard`). `matches01["effort"]` says what was done.
        max_seconds: for what "hard" does beyond plain matching; None: no limit. For "hard" alone.
        preprocess: options of `extractor.extract`, such as `resize`, `tile`, `pyramid`.

    Returns:
        A `MatchedPair`: the features of both images and the matches, without batch dimension, to be unpacked as three
        dictionaries or asked by attributes. The matches also hold `points0` and `points1`, (K, 2) float32: the matched
        keypoints in px of the original images, row by row; and with `auto_rotate` `rotation`: the degrees, clockwise,
        by which the second image was rotated to match the first. With `geometry` there are `geometry`, a
        `lightglue.geometry.Estimate`, and `inliers`, (K,) bool. With `refine` `points0` and `points1` are no longer
        rows of the keypoints.

    Raises InputError; ImageError for a file that cannot be read.
    """
    matcher = _with_effort(matcher, effort, max_seconds)
    angles = angles_of(auto_rotate)
    after = PostProcessing(refine, geometry, estimator)
    after.check_cameras(camera0, camera1)
    contents, device = contents_of((image0, image1)), _device(device)
    given = [contents[id(image0)], contents[id(image1)]]
    first, second = (
        OrientedImage(pixels_of(image, preprocess.get("tile"), angles), mask)
        for image, mask in zip(given, (mask0, mask1), strict=True)
    )
    cameras = after.cameras((camera0, camera1), given, (first, second))
    if angles:
        angle = find_angle(Probes(extractor), matcher, (0, first.image), (1, second.image), angles)
        second = OrientedImage(second.image, mask1, angle)
    begin = perf_counter()
    features = [image.extract(extractor, preprocess) for image in (first, second)]
    with span("matching"):
        found = matcher({"image0": features[0], "image1": features[1]})
    pair = pair_of(features, (first, second), found, bool(angles), device)
    if effort == "hard":
        attempt = Attempt(extractor, preprocess, max_seconds)
        pair = attempt(pair, (first, second), matcher, perf_counter() - begin)
    return after.apply(pair, (first, second), cameras)


def match_pairs(
    extractor: Extractor,
    matcher: PairMatcher,
    pairs: Iterable[tuple[AnyImage, AnyImage]],
    device: str | torch.device = "cpu",
    *,
    masks: Sequence[tuple[Any, Any]] | None = None,
    auto_rotate: bool | int = False,
    refine: bool = False,
    geometry: Geometry | None = None,
    cameras: Sequence[tuple[Any, Any]] | None = None,
    estimator: EstimatorOptions | None = None,
    effort: Effort = "normal",
    max_seconds: float | None = MAX_SECONDS,
    workers: int | None = 1,
    **preprocess: Unpack[ExtractKeywords],
) -> list[MatchedPair]:
    """Match many pairs of images in one call of the matcher; each result equals that of `match_pair`.

    An image (the same object, with the same mask) that is in several pairs is extracted once, with `auto_rotate` once
    for each angle, and its features are the same tensors in each of their results.

    masks: `mask0` and `mask1` for each pair. cameras: `camera0` and `camera1` for each pair. workers: processes on the
    CPU, with one thread each; None for as many as fit and are worth their start, 1 for this process, with torch's
    threads. Extractor and matcher must then be what other processes can have: modules, not a notebook's own classes.

    Raises InputError, ImageError; LightGlueError where several processes died of the same pair.
    """
    pairs = list(pairs)  # it is gone through more than once
    for i, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputError(f"match_pairs takes pairs (image0, image1); item {i} is {type(pair).__name__}")
    masks, cameras = _for_each("mask", masks, len(pairs)), _for_each("camera", cameras, len(pairs))
    matcher = _with_effort(matcher, effort, max_seconds)
    angles = angles_of(auto_rotate)
    after = PostProcessing(refine, geometry, estimator)
    for two in cameras:
        after.check_cameras(*two)
    given, device = contents_of(image for pair in pairs for image in pair), _device(device)
    images = {key: pixels_of(image, preprocess.get("tile"), angles) for key, image in given.items()}
    chosen, known = [], []
    for (image0, image1), (mask0, mask1), two in zip(pairs, masks, cameras, strict=True):
        keys = id(image0), id(image1)
        first, second = OrientedImage(images[keys[0]], mask0), OrientedImage(images[keys[1]], mask1)
        known.append(after.cameras(two, [given[key] for key in keys], (first, second)))
        chosen.append((first, second))
    attempt = Attempt(extractor, preprocess, max_seconds) if effort == "hard" else None
    work = PairsWork(extractor, matcher, preprocess, angles, after, attempt)
    if (count := ProcessEngine(workers).count(work, len(pairs))) > 1:
        return match_in_processes(work, count, chosen, known, device)
    if angles:
        probes = Probes(extractor)
        chosen = [(first, _upright(probes, matcher, first, second, angles)) for first, second in chosen]
    oriented = {image.key: image for pair in chosen for image in pair}
    begin = perf_counter()
    features = {key: image.extract(extractor, preprocess) for key, image in oriented.items()}
    matched = [(features[first.key], features[second.key]) for first, second in chosen]
    with span("matching"):
        found = matcher.match(matched)
    share = (perf_counter() - begin) / max(1, len(pairs))
    results = []
    for two, both, result, own in zip(matched, chosen, found, known, strict=True):
        record = pair_of(two, both, result, bool(angles), device)
        if attempt is not None:
            record = attempt(record, both, _alone(matcher), share)
        results.append(after.apply(record, both, own))
    return results


def _with_effort(matcher: Any, effort: Effort, max_seconds: float | None) -> Any:
    """The matcher of an effort. Raises InputError for one that is not known, and for a limit that it does not have."""
    check_effort(effort)
    check_max_seconds(max_seconds, effort)
    return CoarseToFine(matcher) if effort == "fast" and not isinstance(matcher, CoarseToFine) else matcher


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device is {device!r}; give one that torch knows, such as 'cpu' or 'cuda:1'.") from None


def _for_each(name: str, values: Sequence[tuple[Any, Any]] | None, count: int) -> list[tuple[Any, Any]]:
    """Two of something for each pair; InputError where there are not."""
    found = [(None, None)] * count if values is None else list(values)
    if len(found) != count or not all(isinstance(two, (tuple, list)) and len(two) == 2 for two in found):
        raise InputError(
            f"{name}s must hold ({name}0, {name}1) for each of the {count} pairs, None where there is none."
        )
    return found


def _upright(
    probes: Probes, matcher: PairMatcher, first: OrientedImage, second: OrientedImage, angles: Sequence[float]
) -> OrientedImage:
    """The second image of a pair, rotated to match the first."""
    small0, small1 = ((id(each.image), each.image) for each in (first, second))
    return OrientedImage(second.image, second.mask, find_angle(probes, _alone(matcher), small0, small1, angles))


def _alone(matcher: PairMatcher) -> Matcher:
    """`matcher` for one pair at a time."""
    return lambda data: matcher.match([(data["image0"], data["image1"])])[0]
