"""`extract(image, tile=...)`: an image of any size in bounded memory, its features those of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lightglue import ALIKED, DISK, SIFT, InputError, weights
from lightglue.extractors import aliked_fast, disk, disk_fast
from lightglue.extractors.aliked_fast import coarsest_level, encode, score_map
from lightglue.extractors.aliked_folding import fold
from lightglue.extractors.aliked_network import ARCHITECTURES, AlikedNetwork
from lightglue.extractors.aliked_sparse import describe
from lightglue.extractors.base import Extractor
from lightglue.extractors.bilinear import axis
from lightglue.extractors.disk_fast import Norms
from lightglue.extractors.request import EVERYTHING, Part, Request
from lightglue.extractors.views import best_of, merge_views, sample_of, tiles_of
from lightglue.images import numpy_image_to_torch, read_image
from lightglue.types import Features
from support import ASSETS

PHOTO = ASSETS / "montmartre_close.jpg"
TILE = 512
EXTRACTORS: dict[str, Callable[[], Any]] = {
    "aliked, threshold": ALIKED,
    "aliked, best": lambda: ALIKED(max_num_keypoints=1024, detection_threshold=-1),
    "disk, all": DISK,
    "disk, best": lambda: DISK(max_num_keypoints=1024),
    "sift, all": lambda: SIFT(max_num_keypoints=100_000),  # fewer are cut to before near ones are suppressed
}


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def photo() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(560, 720, 3), neither side a multiple of 32: 2 x 2 tiles."""
    return np.ascontiguousarray(read_image(PHOTO)[60:620, 90:810])


@pytest.fixture(scope="module")
def both(photo: Any) -> Callable[[str], tuple[Features, Features]]:
    """`both("disk, all")`: the photograph's features seen as a whole and in tiles, without batch dimension."""
    found: dict[str, tuple[Features, Features]] = {}
    networks = encoders_that_look_once()

    def features(name: str) -> tuple[Features, Features]:
        if name not in found:
            extractor = EXTRACTORS[name]()
            with patched(networks):
                whole = extractor.extract(numpy_image_to_torch(photo), resize=None)
                tiled = extractor.extract(photo, tile=TILE)
            found[name] = cast(Any, tuple({key: value[0] for key, value in one.items()} for one in (whole, tiled)))
        return found[name]

    return features


def encoders_that_look_once() -> dict[str, Any]:
    """The parts of DISK and ALIKED before their limits apply, for the photograph alone: they know it and its tiles."""
    known: dict[Any, Any] = {}

    def encode_disk(network: Any, image: Tensor, dtype: Any, norms: Norms) -> Any:
        key = (image.numpy().tobytes(), dtype, norms._given is None)
        if key not in known:
            known[key] = disk_fast.encode(network, image, dtype, norms), norms.taken
        encoded, norms.taken = known[key]
        return encoded

    def encode_aliked(network: Any, image: Tensor, part: Part | None) -> Any:
        key = (image.numpy().tobytes(), None if part is None else (part.x, part.y))
        if key not in known:
            known[key] = encode(network, image, part)
        return known[key]

    return {"disk": encode_disk, "aliked": encode_aliked}


@contextmanager
def patched(networks: dict[str, Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, function in networks.items():
            stack.enter_context(mock.patch(f"lightglue.extractors.{name}.encode", function))
        yield


def near_seams(keypoints: Tensor, photo: Any) -> Tensor:
    """Which of `keypoints` (N, 2) lie within 24 px of where two tiles meet."""
    near = torch.zeros(len(keypoints), dtype=torch.bool)
    for tile in tiles_of(*photo.shape[:2], TILE):
        for positions, span in zip(keypoints.T, (tile.x, tile.y), strict=True):
            near |= (positions - span.last).abs() < 24
    return near


def distances(points: Tensor, others: Tensor) -> Tensor:
    """(N, M) px; in float64, where the quick formula is exact enough."""
    return torch.cdist(points.double(), others.double())


def recur(points: Tensor, among: Tensor) -> Tensor:
    """Which of `points` (N, 2) lie within 1 px of one of `among` (M, 2)."""
    return distances(points, among).amin(dim=1) <= 1


# The features of a whole image


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_keypoints_are_those_of_the_whole_image_near_seams_as_elsewhere(name: str, both: Any, photo: Any) -> None:
    whole, tiled = both(name)
    for these, those in ((whole, tiled), (tiled, whole)):
        found, near = recur(these["keypoints"], those["keypoints"]), near_seams(these["keypoints"], photo)
        assert near.sum() > 100
        assert found.float().mean() >= 0.998
        assert found[near].float().mean() >= 0.99


@pytest.mark.parametrize("name", EXTRACTORS)
def test_their_descriptors_are_those_of_the_whole_image(name: str, both: Any) -> None:
    whole, tiled = both(name)
    distance, index = distances(whole["keypoints"], tiled["keypoints"]).min(dim=1)
    cosines = (whole["descriptors"] * tiled["descriptors"][index]).sum(dim=1)[distance < 0.1]
    assert len(cosines) >= 0.97 * len(distance)
    assert cosines.quantile(0.01) > 0.999


@pytest.mark.parametrize("name", EXTRACTORS)
def test_no_keypoint_comes_twice(name: str, both: Any) -> None:
    def closest(features: Features) -> Tensor:
        return distances(features["keypoints"], features["keypoints"]).fill_diagonal_(torch.inf).amin(dim=1)

    whole, tiled = both(name)
    assert closest(tiled).min() >= closest(whole).min() - 0.05
    assert (closest(tiled) < 2).sum() <= (closest(whole) < 2).sum() + 2


@pytest.mark.parametrize("name", ["aliked, best", "disk, best"])
def test_the_best_of_all_tiles_together_stay_within_the_limit(name: str, both: Any) -> None:
    assert both(name)[1]["keypoints"].shape == (1024, 2)


def test_they_come_best_first(both: Any) -> None:
    assert (both("disk, all")[1]["keypoint_scores"].diff() <= 0).all()
    whole, tiled = both("aliked, best")
    same = (whole["keypoints"] - tiled["keypoints"]).abs().amax(dim=1) < 0.1
    assert same.float().mean() > 0.9  # in the order of the whole image; where scores are all but equal they may swap


def test_a_tile_as_large_as_the_image_gives_what_no_tile_gives(photo: Any) -> None:
    for extractor in (EXTRACTORS["aliked, threshold"](), EXTRACTORS["disk, best"]()):
        image = numpy_image_to_torch(photo[:300, :400])
        plain, tiled = extractor.extract(image, resize=None), extractor.extract(image, tile=TILE)
        assert plain.keys() == tiled.keys()
        assert all(torch.equal(plain[key], tiled[key]) for key in plain)


def test_a_file_an_array_and_a_tensor_give_the_same(photo: Any, tmp_path: Path) -> None:
    path, array = tmp_path / "a.png", np.ascontiguousarray(photo[:200])
    cv2.imwrite(str(path), array[..., ::-1])
    extractor = ALIKED(model_name="aliked-t16", max_num_keypoints=200)
    results = [extractor.extract(image, tile=TILE) for image in (path, str(path), array, numpy_image_to_torch(array))]
    for result in results[1:]:
        assert all(torch.equal(result[key], results[0][key]) for key in ("keypoints", "descriptors", "keypoint_scores"))
    assert results[0]["image_size"].tolist() == [[720, 200]]


def test_keypoints_on_a_mask_are_those_of_the_whole_image(photo: Any) -> None:
    extractor = ALIKED(model_name="aliked-t16", max_num_keypoints=300)
    mask = np.zeros(photo.shape[:2], bool)
    mask[200:500, 200:700] = True
    whole = extractor.extract(numpy_image_to_torch(photo), mask=mask, resize=None)["keypoints"][0]
    tiled = extractor.extract(photo, mask=mask, tile=TILE)["keypoints"][0]
    assert len(tiled) == 300
    assert recur(whole, tiled).float().mean() >= 0.99


@pytest.mark.parametrize("tile", [0, 511, -1, 1024.0, "1024", True])
def test_a_tile_that_is_no_side_in_px_is_refused(tile: Any) -> None:
    with pytest.raises(InputError, match="tile is"):
        ALIKED(model_name="aliked-t16").extract(torch.zeros(3, 64, 64), tile=tile)


# Bounded memory


class Recorder(Extractor):
    """Finds one keypoint in the middle of what it is given, and remembers what that was."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.parts: list[Part] = []
        self.prepared: list[tuple[int, int]] = []

    def prepare_tiles(self, read: Callable[[slice, slice], Tensor], size: tuple[int, int]) -> Any:
        self.prepared.append(size)
        return read(slice(0, 2), slice(0, 3))

    def forward(self, data: Mapping[str, Any], request: Request = EVERYTHING) -> Features:
        h, w = data["image"].shape[-2:]
        self.seen.append(tuple(data["image"].shape))
        self.parts.append(request.part)
        return {
            "keypoints": torch.tensor([[[w / 2, h / 2]]]),
            "keypoint_scores": torch.ones(1, 1),
            "descriptors": torch.ones(1, 1, 1),
        }


def test_no_more_than_a_tile_is_ever_converted() -> None:
    extractor = Recorder()
    extractor.extract(np.zeros((2500, 3001, 3), np.uint8), tile=TILE)
    assert len(extractor.seen) == 7 * 8
    assert {shape[:2] for shape in extractor.seen} == {(1, 3)}
    assert max(max(shape[2:]) for shape in extractor.seen) <= TILE + 32


def test_what_is_prepared_once_reaches_every_tile() -> None:
    extractor = Recorder()
    extractor.extract(np.full((700, 1100), 255, np.uint8), tile=TILE)
    assert extractor.prepared == [(700, 1100)]
    assert all((part.width, part.height) == (1100, 700) for part in extractor.parts)
    assert all(torch.equal(part.prepared, torch.ones(1, 1, 2, 3)) for part in extractor.parts)
    extractor.extract(torch.zeros(1, 400, 500), tile=TILE)
    assert extractor.parts[-1] is None
    assert len(extractor.prepared) == 1


def test_tiles_cover_the_image_and_share_enough() -> None:
    for length in (513, 640, 1000, 1024, 2000, 12001):
        row = [tile.x for tile in tiles_of(10, length, TILE)]
        assert row[0].start == 0
        assert row[-1].stop == length
        assert (row[0].first, row[-1].last) == (-np.inf, np.inf)
        for one, other in pairwise(row):
            assert one.stop - other.start >= 128
            assert other.first - other.start >= 48  # px that a tile sees beyond what it answers for
            assert one.stop - one.last >= 48
            assert other.first < one.last


def features_of(points: list[list[float]], scores: list[float], **more: list[float]) -> Features:
    values = {"keypoints": points, "keypoint_scores": scores, **more}
    return cast(Any, {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()})


def test_of_two_tiles_near_points_the_better_stays_with_its_neighbours_in_the_same_tile() -> None:
    one = features_of([[10, 10], [11, 10]], [0.9, 0.5])
    other = features_of([[10.01, 10], [11.01, 10]], [0.89, 0.51])
    merged = merge_views([one, other], None, 2.0)
    assert merged["keypoints"].tolist() == [[10, 10], [11, 10]]


def test_strength_goes_before_scores_and_does_not_stay() -> None:
    one = features_of([[10, 10]], [0.1], strength=[3.0])
    other = features_of([[50, 10], [90, 10]], [0.9, 0.8], strength=[1.0, 2.0])
    merged = merge_views([one, other], 2, 2.0)
    assert merged["keypoints"].tolist() == [[10, 10], [90, 10]]
    assert "strength" not in merged


def test_what_cannot_be_among_the_best_is_dropped_on_the_way() -> None:
    views = [features_of([[0, 0], [9, 0]], [0.1, 0.4]), features_of([[5, 5], [6, 9], [8, 8]], [0.3, 0.3, 0.2])]
    kept = best_of(views, 2)
    assert [view["keypoint_scores"].tolist() for view in kept] == [pytest.approx([0.4]), pytest.approx([0.3, 0.3])]
    assert [len(view["keypoints"]) for view in best_of(views, 5)] == [2, 3]


def test_a_sample_is_the_image_where_it_fits_and_else_a_mosaic_of_the_same_shape() -> None:
    image = torch.arange(600 * 900.0).view(1, 1, 600, 900)
    read = lambda rows, columns: image[..., rows, columns]  # noqa: E731
    assert torch.equal(sample_of(read, (600, 900), 600 * 900, 50), image)
    sample = sample_of(read, (600, 900), 150 * 225, 25)
    assert sample.shape == (1, 1, 150, 225)
    assert torch.equal(sample[..., :25, :25], image[..., :25, :25])
    assert torch.equal(sample[..., -25:, -25:], image[..., -25:, -25:])
    assert len(sample.unique()) == sample.numel()


# What makes a tile equal to the whole


@pytest.fixture(scope="module")
def aliked() -> AlikedNetwork:
    network = AlikedNetwork(ARCHITECTURES["aliked-t16"]).double().eval()
    network.load_state_dict(weights.load_state_dict("aliked-t16"))
    return network


def test_a_part_of_an_edge_lies_in_the_coarse_map_where_the_whole_edge_does() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    whole, part = axis(1024, 32, like), axis(512, 32, like, start=256, whole=1024)

    def position(one: Any) -> Tensor:
        return cast(Tensor, one.low + one.fraction)

    torch.testing.assert_close(position(part), (position(whole)[256:768] - 8).clamp(0, 15), atol=1e-12, rtol=0)


def test_alikeds_coarsest_level_and_scores_of_a_part_are_those_of_the_whole(
    aliked: AlikedNetwork, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aliked_fast, "PART", 5)  # several parts also of a small image
    folded, image = fold(aliked), numpy_image_to_torch(photo[:450, :700]).double()
    whole, (h, w) = encode(folded, image), image.shape[1:]
    level = coarsest_level(folded, lambda rows, columns: image[:, rows, columns], (h, w))
    torch.testing.assert_close(level, whole.levels()[2], atol=1e-3, rtol=0)
    y, x = 64, 150
    part = encode(folded, image[:, y:, x:], Part(x, y, w, h, level))
    inside = (slice(96, None), slice(96, None))
    scores = score_map(folded, whole)
    torch.testing.assert_close(score_map(folded, part)[inside], scores[y:, x:][inside], atol=1e-4, rtol=0)
    keypoints = 130 + rand(50, 2).double() * 150
    shifted = keypoints - torch.tensor([x, y])
    torch.testing.assert_close(
        describe(folded, part, keypoints[shifted.amin(dim=1) > 100] - torch.tensor([x, y])),
        describe(folded, whole, keypoints[shifted.amin(dim=1) > 100]),
        atol=1e-3,
        rtol=0,
    )


def test_alikeds_coarsest_level_needs_parts_of_bounded_size(aliked: AlikedNetwork) -> None:
    sizes: list[tuple[int, int]] = []

    def read(rows: slice, columns: slice) -> Tensor:
        sizes.append((rows.stop - rows.start, columns.stop - columns.start))
        return torch.zeros(3, *sizes[-1], dtype=torch.float64)

    level = coarsest_level(fold(aliked), read, (300, 3000))
    assert level.shape[:2] == (10, 94)
    assert max(max(size) for size in sizes) <= 34 * 32


def test_disk_normalises_tiles_with_a_sample_of_an_image_too_large_for_memory(
    photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the pixels do much better than each tile's own statistics, all of them, above, are exact."""
    extractor, strip = EXTRACTORS["disk, best"](), np.ascontiguousarray(photo[260:])
    whole = extractor.extract(numpy_image_to_torch(strip), resize=None)["keypoints"][0]

    def recurrence() -> float:
        return float(recur(whole, extractor.extract(strip, tile=TILE)["keypoints"][0]).float().mean())

    monkeypatch.setattr(disk, "SAMPLE", strip.shape[0] * strip.shape[1] // 2)
    sampled = recurrence()
    monkeypatch.setattr(DISK, "prepare_tiles", Extractor.prepare_tiles)
    assert sampled >= 0.94
    assert sampled > recurrence() + 0.03


def test_networks_with_hooks_see_tiles_too(photo: Any) -> None:
    """They are run as they are, each tile on its own."""
    for extractor, module in ((ALIKED(model_name="aliked-t16"), "network.block1"), (DISK(), "model.unet.path_up.0")):
        calls: list[object] = []
        extractor.get_submodule(module).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        tiled = extractor.extract(photo[-96:], tile=TILE)["keypoints"][0]
        assert len(calls) == 2
        assert tiled[:, 0].max() > 670
