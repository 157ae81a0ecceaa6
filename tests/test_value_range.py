"""Images whose values use a small part of their type's range: said so, and spread where that is asked for."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lightglue.errors import ImageError
from lightglue.extractors.options import ViewOptions
from lightglue.images import load_image, numpy_image_to_torch, read_image, read_to_look_at
from lightglue.models.choice import Models
from lightglue.pairs.files import match_files
from lightglue.sfm.options import ExtractOptions
from lightglue.sfm.stages.extract import extract
from lightglue.stores import FeatureStore
from lightglue_runtime.images.value_range import stretched, value_range
from support import ASSETS
from support.command import lightglue

COLOURS = cv2.resize(cv2.imread(str(ASSETS / "montmartre_close.jpg")), (320, 240), interpolation=cv2.INTER_AREA)
GRAY = cv2.cvtColor(COLOURS, cv2.COLOR_BGR2GRAY)
SIFT = Models("sift", 200, "cpu", False)
OPTIONS = ExtractOptions(SIFT, {"resize": None})
Twelve = Callable[[NDArray[Any]], NDArray[Any]]


def png(path: Path, image: NDArray[Any]) -> Path:
    cv2.imwrite(str(path), image)
    return path


def tiff(path: Path, values: NDArray[Any], sample_format: int, orientation: int = 1, extra: bytes = b"") -> Path:
    """A TIFF file as scientific programs write it: gray, one strip, no compression; extra: the text of GDAL_NODATA."""
    h, w = values.shape
    start = 8 + values.nbytes
    tags = [
        *((256, 4, 1, w), (257, 4, 1, h), (258, 3, 1, 8 * values.itemsize), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, 8), (274, 3, 1, orientation), (277, 3, 1, 1), (278, 4, 1, h), (279, 4, 1, values.nbytes)),
        (339, 3, 1, sample_format),
    ]
    if extra:
        tags.append((42113, 2, len(extra) + 1, start + 2 + 12 * (len(tags) + 1) + 4))
    rows = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, start)
    path.write_bytes(head + values.tobytes() + struct.pack("<H", len(tags)) + rows + bytes(4) + extra + b"\0")
    return path


def keypoints(image: Any) -> NDArray[np.float32]:
    found = SIFT.load_extractor().extract(image, resize=None)["keypoints"][0].numpy()
    return np.asarray(found)


SENSORS: dict[str, Twelve] = {
    "8 bits moved up by 4": lambda image: image.astype(np.uint16) << 4,
    "12 bits": lambda image: np.rint(image * (4095 / 255)).astype(np.uint16),
    "10 bits": lambda image: np.rint(image * (1023 / 255)).astype(np.uint16),
    "14 bits": lambda image: np.rint(image * (16383 / 255)).astype(np.uint16),
    "12 bits moved up by 4": lambda image: np.rint(image * (4095 / 255)).astype(np.uint16) << 4,
    "8 bits": lambda image: image.astype(np.uint16),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_bits_of_a_sensor_in_16_give_the_pixels_and_keypoints_of_the_8_bit_image(tmp_path, sensor):
    path = png(tmp_path / "a.png", SENSORS[sensor](COLOURS))
    expected = load_image(png(tmp_path / "b.png", COLOURS))
    found = load_image(path, stretch=True)
    assert float((found - expected).abs().max()) < 1 / 1000  # a quarter of one of 255, where there are but 10 bits
    theirs, ours = keypoints(expected), keypoints(found)
    nearest = np.linalg.norm(ours[:, None] - theirs, axis=2).min(1)
    assert abs(len(ours) - len(theirs)) <= 1 < 150 < len(ours)  # rounding may decide of one that is hardly there
    assert (nearest < 0.05).mean() > 0.97
    if sensor == "8 bits moved up by 4":
        assert np.array_equal(ours, theirs)
    assert np.array_equal(read_image(path, stretch=True), read_image(tmp_path / "b.png"))


def test_an_8_bit_photograph_is_left_as_it_is():
    assert stretched(COLOURS) is COLOURS
    assert value_range(COLOURS) == (0, 255)


def test_dead_pixels_do_not_count(tmp_path):
    twelve = COLOURS.astype(np.uint16) << 4
    twelve[100, 100] = 65535
    assert value_range(twelve) == (0, 4080)
    assert stretched(twelve)[100, 100].tolist() == [65535] * 3


def test_a_thermal_image_is_spread_between_its_outer_thousandths():
    """Hundredths of a kelvin: what is seen lies in a sliver far from 0."""
    thermal = (29_000 + GRAY * 5.0).astype(np.uint16)
    low, high = value_range(thermal)
    assert 29_000 <= low < 29_150
    assert 30_150 < high <= 29_000 + 5 * 255
    found = stretched(thermal)
    assert (found.min(), found.max()) == (0, 65535)
    assert np.corrcoef(found.ravel(), GRAY.ravel())[0, 1] > 0.999
    assert len(keypoints(numpy_image_to_torch(found))) > 0.9 * len(keypoints(numpy_image_to_torch(GRAY)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_float_tiff_is_read_and_nan_and_infinities_cost_their_pixels_only(tmp_path, dtype):
    celsius = (15 + GRAY * 0.1).astype(dtype)
    whole = load_image(tiff(tmp_path / "a.tif", celsius, 3), stretch=True)
    celsius[10, 20], celsius[11, 20], celsius[12, 20] = np.nan, np.inf, -np.inf
    found = load_image(tiff(tmp_path / "b.tif", celsius, 3), stretch=True)
    assert found.shape == (3, 240, 320)
    assert found[0, 10:13, 20].tolist() == [0, 1, 0]
    same = np.ones((240, 320), bool)
    same[10:13, 20] = False
    assert float((found - whole).abs()[0].numpy()[same].max()) < 0.01
    assert abs(len(keypoints(found)) - len(keypoints(whole))) < 5


def test_floats_in_0_to_1_are_that(tmp_path):
    path = tiff(tmp_path / "a.tif", (GRAY / 255).astype(np.float32), 3)
    assert np.array_equal(read_image(path, grayscale=True, stretch=True), GRAY)


def test_whole_numbers_of_32_bits_and_with_signs_are_read(tmp_path):
    expected = load_image(png(tmp_path / "b.png", GRAY), grayscale=True)
    for dtype, sample_format in ((np.uint32, 1), (np.int32, 2), (np.int16, 2)):
        path = tiff(tmp_path / "a.tif", GRAY.astype(dtype) << 4, sample_format)
        assert float((load_image(path, grayscale=True, stretch=True) - expected).abs().max()) < 1e-4
    below = load_image(tiff(tmp_path / "a.tif", GRAY.astype(np.int16) - 300, 2), grayscale=True, stretch=True)
    assert np.corrcoef(below.ravel(), GRAY.ravel())[0, 1] > 0.999


def test_pixels_that_were_not_measured_are_black_and_do_not_count(tmp_path):
    """GDAL says in the file which value stands for them."""
    heights = (400 + GRAY * 0.5).astype(np.float32)
    heights[:, :100] = -9999
    found = read_image(tiff(tmp_path / "a.tif", heights, 3, extra=b"-9999"), grayscale=True, stretch=True)
    assert (found[:, :100] == 0).all()
    assert np.corrcoef(found[:, 100:].ravel(), GRAY[:, 100:].ravel())[0, 1] > 0.999
    assert found[:, 100:].std() > 0.9 * GRAY[:, 100:].std()


def test_the_orientation_of_a_float_tiff_counts(tmp_path):
    turned = np.ascontiguousarray(np.rot90(GRAY)).astype(np.float32)  # 6: to be turned clockwise
    path = tiff(tmp_path / "a.tif", turned, 3, orientation=6)
    assert np.array_equal(read_image(path, grayscale=True, stretch=True), GRAY)


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
def test_an_image_of_one_value_is_black_and_no_error(tmp_path, value):
    path = tiff(tmp_path / "a.tif", np.full((20, 30), value, np.float32), 3)
    assert not load_image(path, stretch=True).any()


@pytest.mark.parametrize(("dtype", "sample_format"), [(np.float32, 3), (np.int16, 2), (np.int8, 2), (np.uint32, 1)])
def test_samples_without_a_range_are_refused_with_the_remedy(tmp_path, dtype, sample_format):
    path = tiff(tmp_path / "a.tif", GRAY.astype(dtype), sample_format)
    for reader in (load_image, read_image):
        with pytest.raises(ImageError, match=r"a.tif: this TIFF holds u?(int|float)\d+ samples.*--stretch"):
            reader(path)


def test_queries_are_read_as_the_map_was(tmp_path):
    from lightglue.sfm.localization.localizer import _pixels

    query = COLOURS.astype(np.uint16) << 4
    expected = load_image(png(tmp_path / "8.png", COLOURS))
    assert np.array_equal(_pixels(png(tmp_path / "12.png", query), stretch=True), expected)
    assert np.array_equal(_pixels(query[..., ::-1], stretch=True), expected)


def test_an_image_that_is_looked_at_is_bright_and_one_of_8_bits_is_as_it_is(tmp_path):
    dull = (GRAY // 4 + 90).astype(np.uint8)
    assert np.array_equal(read_to_look_at(png(tmp_path / "a.png", dull))[..., 0], dull)
    twelve = png(tmp_path / "b.png", GRAY.astype(np.uint16) << 4)
    for path in (twelve, tiff(tmp_path / "c.tif", GRAY.astype(np.float32), 3)):
        assert np.array_equal(read_to_look_at(path)[..., 0], GRAY)


def test_a_small_range_is_said_with_the_largest_value(tmp_path):
    path = png(tmp_path / "a.png", COLOURS.astype(np.uint16) << 4)
    with pytest.warns(UserWarning, match=r"a.png has 16 bits, but its values lie from 112 to 4,048 of 65,535, .*--str"):
        load_image(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path, stretch=True)
        load_image(png(tmp_path / "b.png", COLOURS.astype(np.uint16) * 257))
        load_image(png(tmp_path / "c.png", np.zeros((40, 40), np.uint16)))


@pytest.mark.parametrize("tile", [None, 512])
def test_match_files_stretches_files_and_arrays(tmp_path, tile):
    paths = [png(tmp_path / f"{bits}.png", COLOURS.astype(np.uint16) << (bits - 8)) for bits in (12, 14)]
    eight = png(tmp_path / "8.png", COLOURS)
    models = Models("sift", 100, "cpu", False, matcher="nearest")
    views = ViewOptions(resize=None, tile=tile, stretch=True)
    pair = match_files(
        paths[0], cv2.cvtColor(COLOURS, cv2.COLOR_BGR2RGB).astype(np.uint16) << 4, models=models, views=views
    ).pair
    usual = match_files(eight, eight, models=models, views=ViewOptions(resize=None, tile=tile)).pair
    assert np.allclose(pair.keypoints0, usual.keypoints0, atol=0.01)
    assert np.allclose(pair.keypoints1, usual.keypoints1, atol=0.01)
    assert match_files(paths[1], eight, models=models, views=views).pair.matches.shape == usual.matches.shape


def test_the_commands_stretch(tmp_path):
    png(tmp_path / "12.png", COLOURS.astype(np.uint16) << 4)
    png(tmp_path / "8.png", COLOURS)
    common = ("-o", tmp_path, "--features", "sift", "--max-keypoints", "100", "--no-mp", "--device", "cpu")
    for words in ((), ("--tile", "512")):
        assert lightglue("extract", tmp_path / "12.png", tmp_path / "8.png", *common, *words, "--stretch").code == 0
        twelve, eight = (np.load(tmp_path / f"{bits}.png.npz")["keypoints"] for bits in (12, 8))
        assert np.allclose(twelve, eight, atol=0.01)


def test_features_of_a_map_are_those_of_8_bits_and_the_map_remembers(tmp_path):
    for bits in (8, 12):
        (tmp_path / str(bits)).mkdir()
    png(tmp_path / "8/a.png", COLOURS)
    png(tmp_path / "12/a.png", COLOURS.astype(np.uint16) << 4)
    stretch = ExtractOptions(SIFT, {"resize": None}, stretch=True)
    extract(tmp_path / "8", tmp_path / "features8", OPTIONS)
    result = extract(tmp_path / "12", tmp_path / "features12", stretch)
    assert result.skipped == ()
    stores = [FeatureStore.open(tmp_path / f"features{bits}") for bits in (8, 12)]
    assert np.array_equal(stores[0].get("a.png").keypoints, stores[1].get("a.png").keypoints)
    assert [store.stretch for store in stores] == [False, True]


def test_a_map_says_once_which_images_use_a_small_range_and_how_large_their_values_are(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number in range(4):
        image = np.roll(COLOURS, 10 * number, 1).astype(np.uint16) << (3 + number % 2)
        png(tmp_path / f"photographs/{number}.png", image)
    result = extract(tmp_path / "photographs", tmp_path / "features", OPTIONS)
    assert {each.name for each in result.skipped} == {"0.png", "1.png", "2.png", "3.png"}
    (reason,) = {each.reason for each in result.skipped}
    assert reason.endswith("the largest value is 4,048 of 65,535: --stretch spreads them")
    assert all(each.is_used for each in result.skipped)
    assert result.extracted == 4
