"""Loading image files: the right pixels, or one clear error."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lightglue.errors import ImageError, ImageNotFoundError, InputError
from lightglue.images import as_pixels, as_tensor, load_image, numpy_image_to_torch, read_image, resize_image
from lightglue_runtime.images import files
from lightglue_runtime.images.headers import FORMATS, format_of, stored_size
from support.users import ordinary_user

# What Pillow can write and the loader must read: format -> modes, and options for the encoder.
WRITTEN = {
    "JPEG": (["RGB", "L", "CMYK"], {"quality": 95}),
    "PNG": (["RGB", "RGBA", "L", "LA", "P", "1", "I;16"], {}),
    "TIFF": (["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"], {}),
    "WEBP": (["RGB", "RGBA"], {"lossless": True}),
    "BMP": (["RGB", "L", "P", "1"], {}),
    "PPM": (["RGB", "L", "1"], {}),
    "JPEG2000": (["RGB", "RGBA", "L"], {}),
}
VARIANTS = [(name, mode) for name, (modes, _) in WRITTEN.items() for mode in modes]


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth random colours, (H, W, 3) uint8: what a lossy format keeps within a few steps."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def in_mode(pixels: np.ndarray, mode: str) -> Image.Image:
    image = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)


def encode(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **{**WRITTEN[name][1], **options})
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def to_file(data: bytes, name: str = "image") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return to_file


# --- pixels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1])
def test_pixels_are_opencvs_own(image_path: Callable[[str, int], Path], index: int) -> None:
    path = image_path("montmartre", index)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1].transpose(2, 0, 1) / 255.0
    image = load_image(path)
    assert torch.equal(image, torch.tensor(expected, dtype=torch.float32))
    assert image.is_contiguous()


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
def test_every_format_and_mode_gives_its_colours(name: str, mode: str, write: Callable[[bytes], Path]) -> None:
    original = in_mode(picture(37, 23), mode)
    path = write(encode(original, name))
    shown = Image.open(path)
    gray = np.asarray(shown, np.float32) / 65535 if mode == "I;16" else np.asarray(shown.convert("L"), np.float32) / 255
    colour = np.stack([gray] * 3, -1) if mode == "I;16" else np.asarray(shown.convert("RGB"), np.float32) / 255
    tolerance = 4 / 255 if name == "JPEG" else 1.01 / 255  # CMYK and luma are rounded differently
    assert np.abs(load_image(path).permute(1, 2, 0).numpy() - colour).max() <= tolerance
    assert np.abs(load_image(path, grayscale=True)[0].numpy() - gray).max() <= 2 * tolerance


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_precision(name: str, channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (13, 17, channels), dtype=np.uint16)
    path = tmp_path / f"deep.{name.lower()}"
    assert cv2.imwrite(str(path), values[..., ::-1])
    expected = torch.from_numpy(values.astype(np.float64) / 65535).float().permute(2, 0, 1)
    assert torch.equal(load_image(path), expected.expand(3, -1, -1))
    if channels == 1:
        assert torch.equal(load_image(path, grayscale=True), expected)
    assert read_image(path).dtype == np.uint8


def test_transparency_is_dropped_and_the_colour_under_it_kept(write: Callable[[bytes], Path]) -> None:
    path = write(encode(Image.new("RGBA", (4, 4), (10, 200, 30, 0)), "PNG"))
    assert torch.equal(load_image(path)[:, 0, 0] * 255, torch.tensor([10.0, 200.0, 30.0]))


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("grayscale", [False, True])
def test_the_exif_orientation_is_applied(
    name: str, orientation: int, grayscale: bool, write: Callable[[bytes], Path]
) -> None:
    upright = np.zeros((24, 40, 3), np.uint8)  # three corners of different brightness tell all eight apart
    upright[:12, :20], upright[:12, 20:], upright[12:, :20] = 250, 170, 90
    # EXIF 2.32, tag 0x0112: how the stored rows and columns came from the upright picture.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(encode(Image.fromarray(np.ascontiguousarray(stored)), name, exif=exif))
    image = load_image(path, grayscale=grayscale)
    assert image.shape[1:] == (24, 40)
    assert np.abs(image[0].numpy() * 255 - upright[..., 0]).mean() < 3


@pytest.mark.parametrize("name", ["a b.png", "été-图像.png", "no_ending", "wrong.jpg"])
def test_names_do_not_matter(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(encode(Image.new("RGB", (5, 3)), "PNG"))
    assert load_image(path).shape == load_image(str(path)).shape == (3, 3, 5)


def test_the_first_frame_of_an_animation_is_read(write: Callable[[bytes], Path]) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("white", "black")]
    path = write(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50))
    assert torch.equal(load_image(path), torch.ones(3, 4, 6))


def test_read_image_gives_rgb_or_gray_bytes(image_path: Callable[[str, int], Path]) -> None:
    path = image_path("montmartre", 0)
    assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])
    assert np.array_equal(read_image(path, grayscale=True), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert np.array_equal(read_image(path, True), read_image(path, grayscale=True))


# --- resizing on load ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resize", "fn", "expected"),
    [
        (20, "max", (10, 20)),
        (20, "min", (20, 40)),
        (33, "max", (16, 33)),  # 16.5 is rounded to even
        ((7, 9), "max", (7, 9)),
        (80, "max", (40, 80)),
    ],
)
def test_resize_names_an_edge_or_both(
    resize: int, fn: str, expected: tuple[int, int], write: Callable[[bytes], Path]
) -> None:
    path = write(encode(Image.fromarray(picture(40, 20)), "PNG"))
    assert load_image(path, resize, fn=fn).shape == (3, *expected)
    assert load_image(path, resize, fn=fn, grayscale=True).shape == (1, *expected)


@pytest.mark.parametrize("interp", ["linear", "cubic", "nearest", "area"])
def test_resize_is_opencvs_on_the_stored_values(interp: str, write: Callable[[bytes], Path]) -> None:
    pixels = picture(40, 20)
    path = write(encode(Image.fromarray(pixels), "PNG"))
    flag = getattr(cv2, f"INTER_{interp.upper()}")
    expected = torch.from_numpy(cv2.resize(pixels, (30, 15), interpolation=flag)).permute(2, 0, 1) / 255
    assert torch.equal(load_image(path, 30, interp=interp), expected)


def test_resize_image_returns_the_scales_of_width_and_height() -> None:
    resized, scales = resize_image(picture(40, 21), 20)
    assert resized.shape == (10, 20, 3)
    assert scales == (20 / 40, 10 / 21)
    gray, scales = resize_image(picture(40, 21)[..., :1], (10, 30), "min", "linear")
    assert gray.shape == (10, 30, 1)
    assert scales == (30 / 40, 10 / 21)


@pytest.mark.parametrize("image", [np.zeros((8, 8), np.float16), np.zeros((8, 8), bool), np.zeros(8), [[1]], None])
def test_what_opencv_cannot_resize_is_refused(image: object) -> None:
    with pytest.raises(InputError, match=r"(cannot resize|Not an image)"):
        resize_image(image, 4)  # type: ignore[arg-type]


def test_sizes_may_be_numpys_integers() -> None:
    image = picture(40, 20)
    assert resize_image(image, np.int64(20))[0].shape == (10, 20, 3)
    assert resize_image(image, (np.int32(7), np.uint8(9)))[0].shape == (7, 9, 3)


def test_a_thin_image_keeps_one_pixel() -> None:
    resized, _ = resize_image(np.zeros((2, 3000), np.uint8), 100)
    assert resized.shape == (1, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 0}, "resize is 0"),
        ({"resize": True}, "resize is True"),
        ({"resize": 12.5}, r"resize is 12\.5"),
        ({"resize": "20"}, "resize is '20'"),
        ({"resize": (4,)}, r"resize is \(4,\)"),
        ({"resize": (4, -1)}, r"resize is \(4, -1\)"),
        ({"resize": 4, "fn": "long"}, "fn is 'long'; choose one of max, min"),
        ({"resize": 4, "interp": "bilinear"}, "interp is 'bilinear'; choose one of linear"),
    ],
)
def test_resize_options_without_meaning_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image("never opened", **options)  # type: ignore[arg-type]


# --- arrays -------------------------------------------------------------------------------------------------------


def test_arrays_become_channels_first_in_zero_to_one() -> None:
    image = picture(7, 5)
    tensor = numpy_image_to_torch(image)
    assert torch.equal(tensor, torch.tensor(image.transpose(2, 0, 1) / 255.0, dtype=torch.float32))
    assert torch.equal(numpy_image_to_torch(image[..., 0]), tensor[:1])
    assert torch.equal(numpy_image_to_torch(image[..., :1]), tensor[:1])


def test_all_eight_and_sixteen_bit_values_are_divided_exactly() -> None:
    for dtype, full in ((np.uint8, 255), (np.uint16, 65535)):
        values = np.arange(full + 1).reshape(-1, 256).astype(dtype)
        expected = torch.tensor(values / full, dtype=torch.float32)[None]
        assert torch.equal(numpy_image_to_torch(values), expected)
        assert torch.equal(numpy_image_to_torch(values.astype(values.dtype.newbyteorder(">"))), expected)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float16, np.float32, np.float64])
def test_other_numbers_from_0_to_255_are_divided_by_255(dtype: type) -> None:
    image = picture(7, 5)
    assert torch.allclose(numpy_image_to_torch(image.astype(dtype)), numpy_image_to_torch(image), atol=1e-7)


def test_views_of_any_stride_and_read_only_arrays_work_and_stay_unchanged() -> None:
    image = picture(8, 6)
    copy = image.copy()
    image.flags.writeable = False
    for view in (image, image[::-1], image[:, ::-1], image[..., ::-1], image[::2, 1::3], image.transpose(1, 0, 2)):
        assert torch.equal(numpy_image_to_torch(view), numpy_image_to_torch(view.copy()))
    assert np.array_equal(image, copy)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 3, 4, 3), np.uint8), r"shape \(2, 3, 4, 3\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((3, 40, 50), np.uint8), r"shape \(3, 40, 50\)"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\)"),
        (np.zeros((4, 5), bool), "dtype bool"),
        (np.zeros((4, 5), complex), "dtype complex128"),
        (np.full((4, 5), -1), "from -1 to -1"),
        (np.full((4, 5), 256.0), r"from 256\.0"),
        (np.full((4, 5), np.nan), "nan"),
        (np.full((4, 5), 0.5), r"in \[0, 1\] already"),
        ([[1, 2]], "list"),
    ],
)
def test_arrays_that_are_no_images_are_refused(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        numpy_image_to_torch(image)  # type: ignore[arg-type]


def test_an_array_that_is_no_image_is_a_value_error_as_published() -> None:
    with pytest.raises(ValueError, match="Not an image"):
        numpy_image_to_torch(np.zeros(5, np.uint8))


# --- files at fault -----------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing here.jpg"
    with pytest.raises(ImageNotFoundError, match=r"There is no image at .*nothing here\.jpg"):
        load_image(path)
    with pytest.raises(FileNotFoundError):  # as published
        read_image(path)
    (tmp_path / "file").touch()
    with pytest.raises(ImageNotFoundError):
        load_image(tmp_path / "file" / "image.png")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder; name an image in it"):
        load_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not a regular file"):
        load_image(tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_refused(
    write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(b"secret")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "stat", refuse)
    with pytest.raises(ImageError, match="may not be read; change its permissions"):
        load_image(path)


def test_an_unreadable_disk_is_reported(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(b"anything")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "stat", fail)
    with pytest.raises(ImageError, match="Input/output error"):
        load_image(path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(path)


@pytest.mark.parametrize("path", [None, 3, np.zeros((4, 4))])
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(InputError, match="The path of an image is a"):
        load_image(path)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_and_open_files_are_read_like_paths(form: Callable[[bytes], Any], tmp_path: Path) -> None:
    data = encode(Image.fromarray(picture(30, 20)), "PNG")
    (tmp_path / "image.png").write_bytes(data)
    expected = read_image(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(form(data)), expected)
    assert torch.equal(load_image(form(data), resize=10), load_image(tmp_path / "image.png", resize=10))
    with (tmp_path / "image.png").open("rb") as file:
        np.testing.assert_array_equal(read_image(file), expected)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (b"", ImageError, "The image given as bytes is empty"),
        (b"<svg/>", ImageError, "The image given as bytes is not an image that can be read"),
        (io.BytesIO(b"GIF8"), ImageError, "The open file is not an image that can be read"),
        (io.StringIO("text"), InputError, "The open file is open for text; open an image with mode 'rb'"),
    ],
)
def test_bytes_that_are_no_image_are_refused(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_image(wrong)


def test_a_bomb_in_bytes_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    data = bytearray(encode(Image.fromarray(picture(3, 2)), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ImageError, match=r"The image given as bytes: 60000 x 60000 is 3,600,000,000 pixels"):
        load_image(bytes(data))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "I;16"])
def test_pillows_images_are_what_their_files_hold(mode: str) -> None:
    image = Image.fromarray(picture(30, 20)).convert("RGB" if mode != "I;16" else "L")
    image = image.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    is_gray = mode in ("L", "1", "I;16")
    assert torch.equal(as_tensor(image), load_image(buffer.getvalue(), grayscale=is_gray))
    assert as_pixels(image).shape == (20, 30) if is_gray else (20, 30, 3)


def test_a_pillow_image_that_cannot_be_decoded_is_refused() -> None:
    content = cv2.imencode(".jpg", np.full((64, 64, 3), 7, np.uint8))[1].tobytes()
    with pytest.raises(ImageError, match="opened by Pillow cannot be decoded: .*truncated.*; open it again"):
        as_pixels(Image.open(io.BytesIO(content[:-40])))
    closed = Image.open(io.BytesIO(content))
    closed.close()
    with pytest.raises(ImageError, match="cannot be decoded"):
        as_pixels(closed)


def test_a_pillow_image_of_real_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="Pillow's mode 'F'; convert it to one of 1, L"):
        as_tensor(Image.fromarray(np.zeros((4, 5), np.float32)))


def test_convention_arrays_are_red_green_blue_and_opencvs_are_turned_round() -> None:
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    assert as_tensor(red)[:, 0, 0].tolist() == [1, 0, 0]
    opencv = cv2.imdecode(np.frombuffer(encode(Image.fromarray(red), "PNG"), np.uint8), cv2.IMREAD_COLOR)
    assert opencv[0, 0].tolist() == [0, 0, 255]
    assert torch.equal(as_tensor(opencv[..., ::-1]), as_tensor(red))
    assert as_pixels(opencv[..., ::-1]).flags.c_contiguous


def test_what_is_a_tensor_or_no_image_stays_as_it_is() -> None:
    tensor = torch.zeros(3, 4, 5)
    assert as_tensor(tensor) is tensor
    assert as_tensor(None) is None


def test_an_empty_file_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(ImageError, match="is empty"):
        load_image(write(b""))


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3",
        b"PK\x03\x04 a zip",
        b"\x1f\x8b a gzip",
        bytes(100),
        b"\xff",
    ],
    ids=["text", "html", "pdf", "zip", "gzip", "zeros", "one byte"],
)
def test_a_file_of_another_kind_is_refused_with_the_kinds_that_are_read(
    data: bytes, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(ImageError, match=r"image is not an image that can be read \(JPEG, PNG, .*convert it"):
        load_image(write(data))


@pytest.mark.parametrize(("name", "mode"), VARIANTS)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.7, 0.95])
def test_a_file_that_is_cut_off_is_refused(
    name: str, mode: str, share: float, write: Callable[[bytes], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(in_mode(picture(60, 50), mode), name)
    with pytest.raises(ImageError, match=r"(cut off|not an image)"):
        load_image(write(data[: int(len(data) * share)]))
    assert capfd.readouterr().err == ""  # OpenCV's own remarks stand in the error


def test_a_photograph_that_is_cut_off_is_refused_whatever_the_decoder_does(
    image_path: Callable[[str, int], Path], write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV 4.9 fills the missing part with gray and reports success, so the file itself must tell."""
    monkeypatch.setattr(files.cv2, "imdecode", lambda *_: np.zeros((876, 1280, 3), np.uint8))
    data = image_path("montmartre", 0).read_bytes()
    assert load_image(write(data)).shape == (3, 876, 1280)
    for length in (len(data) - 2, len(data) // 2, 5000):
        with pytest.raises(ImageError, match="JPEG file is damaged or cut off"):
            load_image(write(data[:length]))


@pytest.mark.parametrize("mode", ["F", "I"])
@pytest.mark.parametrize("grayscale", [False, True])
def test_thirty_two_bits_a_channel_are_refused(
    mode: str, grayscale: bool, write: Callable[[bytes], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ImageError, match=r"convert it to (an 8- or 16-bit PNG|8 or 16 bits)"):
        load_image(write(encode(Image.new(mode, (8, 8)), "TIFF")), grayscale=grayscale)
    capfd.readouterr()


# --- size limit ---------------------------------------------------------------------------------------------------


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims any size: a decompression bomb's header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(
    write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    path = write(png_claiming(30_000, 30_000))
    with pytest.raises(ImageError, match=r"30000 x 30000 is 900,000,000 pixels, more than max_pixels=500,000,000"):
        load_image(path)
    with pytest.raises(ImageError, match="more than max_pixels"):
        read_image(path)


def test_the_default_limit_admits_20000_by_20000(
    write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = np.zeros((2, 2, 3), np.uint8)  # stands for the 1.2 GB that the real one would take
    monkeypatch.setattr(files.cv2, "imdecode", lambda *_: decoded)
    assert load_image(write(png_claiming(20_000, 20_000))).shape == (3, 2, 2)


def test_the_limit_is_configurable(write: Callable[[bytes], Path]) -> None:
    path = write(encode(Image.new("RGB", (100, 50)), "PNG"))
    with pytest.raises(ImageError, match="max_pixels=4,999"):
        load_image(path, max_pixels=4999)
    assert load_image(path, max_pixels=5000).shape == load_image(path, max_pixels=None).shape == (3, 50, 100)
    assert load_image(path, max_pixels=1e9).shape == (3, 50, 100)
    for limit in ("1", True, 0, -1, float("nan"), [5]):
        with pytest.raises(InputError, match="max_pixels is .*; give a positive number, or None"):
            load_image(path, max_pixels=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("resize", "fn"), [(2_000_000, "max"), (10**400, "max"), ((8, 65_537), "max"), (40_000, "min")]
)
def test_a_size_beyond_all_memory_is_refused(resize: int | tuple[int, int], fn: str) -> None:
    with pytest.raises(InputError, match=r"resize is .*longer than 65,536 px; give a smaller one"):
        resize_image(np.zeros((8, 80, 3), np.uint8), resize, fn)


def test_opencvs_own_limit_is_explained(write: Callable[[bytes], Path], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match="set OPENCV_IO_MAX_IMAGE_PIXELS"):
        load_image(write(png_claiming(40_000, 40_000)), max_pixels=None)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "mode"), [*VARIANTS, ("GIF", "P")])
@pytest.mark.parametrize("size", [(1, 1), (53, 37), (2, 300)])
def test_the_header_tells_the_stored_size(name: str, mode: str, size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    in_mode(picture(*size), mode).save(buffer, name)
    kind = format_of(buffer.getvalue()[:64])
    assert kind is not None
    assert stored_size(kind, buffer.getvalue()) == size


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": Image.Exif().tobytes() + bytes(60_000)}),
        ("TIFF", {"big_tiff": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"lossless": False, "exif": Image.Exif().tobytes()}),
        ("JPEG2000", {"no_jp2": True}),
    ],
)
def test_the_header_is_found_in_rarer_layouts(name: str, options: dict[str, object]) -> None:
    data = encode(Image.fromarray(picture(53, 37)), name, **options)
    assert stored_size(str(format_of(data[:64])), data) == (53, 37)


@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=200))
def test_no_header_is_a_surprise(kind: str, data: bytes) -> None:
    size = stored_size(kind, data)
    assert size is None or min(size) > 0


# --- whatever the bytes -------------------------------------------------------------------------------------------

hostile = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_valid_or_refused(path: Path, grayscale: bool) -> torch.Tensor | None:
    refusal = None
    try:
        image = load_image(path, grayscale=grayscale, max_pixels=10**7)
    except ImageError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(path) in refusal
        return None
    assert image.dtype == torch.float32
    assert image.ndim == 3
    assert image.shape[0] == (1 if grayscale else 3)
    assert 0 <= image.min() <= image.max() <= 1
    return image


@hostile
@given(st.sampled_from(VARIANTS), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_any_image_of_any_size_loads(
    tmp_path: Path, variant: tuple[str, str], width: int, height: int, grayscale: bool, seed: int
) -> None:
    path = tmp_path / "generated"
    path.write_bytes(encode(in_mode(picture(width, height, seed), variant[1]), variant[0]))
    image = assert_valid_or_refused(path, grayscale)
    assert image is not None
    assert image.shape[1:] == (height, width)


@hostile
@given(
    st.sampled_from(VARIANTS),
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.booleans(),
)
def test_any_damage_gives_an_image_or_an_image_error(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    variant: tuple[str, str],
    share: float,
    flips: list[tuple[float, int]],
    grayscale: bool,
) -> None:
    data = bytearray(encode(in_mode(picture(24, 17), variant[1]), variant[0]))
    for place, value in flips:
        data[int(place * len(data))] = value
    path = tmp_path / "damaged"
    path.write_bytes(data[: round(share * len(data))] if share < 0.5 else data)
    with warnings.catch_warnings(record=True) as told:  # of an image that was decoded in part
        warnings.simplefilter("always")
        assert_valid_or_refused(path, grayscale)
    assert all(str(path) in str(each.message) for each in told)
    assert capfd.readouterr().err == ""


def test_a_file_without_read_permission_is_refused_by_the_system_itself(public_folder: Path) -> None:
    path = public_folder / "image.png"
    path.write_bytes(encode(Image.new("RGB", (4, 4)), "PNG"))
    path.chmod(0)
    with ordinary_user(), pytest.raises(ImageError, match="may not be read"):
        load_image(path)


def test_convention_arrays_are_indexed_y_x_from_the_top_left(write: Callable[[bytes], Path]) -> None:
    image = Image.new("RGB", (7, 5))
    image.putpixel((6, 1), (255, 128, 0))  # x = 6, y = 1
    tensor = load_image(write(encode(image, "PNG")))
    assert tensor.shape == (3, 5, 7)
    assert torch.equal(tensor[:, 1, 6], torch.tensor([255.0, 128.0, 0.0]) / 255)
    assert tensor.sum() == tensor[:, 1, 6].sum()


@pytest.mark.parametrize("interp", ["area", "linear"])
def test_convention_loading_smaller_maps_pixel_centres(interp: str) -> None:
    """A pixel x lies at (x + 0.5) * scale - 0.5 of the resized image: shown on a ramp, whose value is x."""
    ramp = np.broadcast_to(np.arange(400, dtype=np.float32), (300, 400))
    resized, (scale, _) = resize_image(ramp, 100, interp=interp)
    assert scale == 0.25
    assert np.allclose((resized[0] + 0.5) * scale - 0.5, np.arange(100))
