"""What OpenCV, libjpeg, libpng and libtiff write to stderr becomes part of the error that names the file."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightglue.errors import ImageError
from lightglue.images import load_image
from lightglue_runtime.native_lines import with_native_lines
from support.child import run_python

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8), (400, 300))


def encoded(ending: str) -> bytes:
    return cv2.imencode(ending, PICTURE)[1].tobytes()


def damaged(ending: str, share: float = 0.5) -> bytes:
    """The file with 40 of its bytes changed."""
    data = bytearray(encoded(ending))
    at = int(len(data) * share)
    data[at : at + 40] = bytes((byte * 7 + 91) % 256 for byte in data[at : at + 40])
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("crc.png", damaged(".png", 0.3), "libpng error: IDAT: CRC error"),
        ("cut.jp2", encoded(".jp2")[:9000], "Failed to decode the codestream"),
        ("cut.bmp", encoded(".bmp")[:2000], "Unexpected end of input stream"),
        ("cut.ppm", encoded(".ppm")[:2000], "Unexpected end of input stream"),
    ],
)
def test_the_decoders_words_stand_in_our_one_error_and_not_on_stderr(
    name: str, content: bytes, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as raised:
        load_image(tmp_path / name)
    assert name in str(raised.value)
    assert said in str(raised.value)
    assert "global " not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("ending", "said"), [(".jpg", "Corrupt JPEG data"), (".tif", "Using code not yet in table")])
def test_an_image_that_is_decoded_in_part_is_a_warning_with_the_files_name(
    ending: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"half{ending}"
    path.write_bytes(damaged(ending))
    with pytest.warns(UserWarning, match=f"half{ending}: this .* is damaged.*{said}"):
        assert load_image(path).shape == (3, 300, 400)
    assert capfd.readouterr() == ("", "")


def test_what_others_write_meanwhile_arrives_whole_and_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> str:
        os.write(2, b"bar 10%\r")
        os.write(2, b"a line of ours\n")
        os.write(2, b"[ WARN:0@0.5] global loadsave.cpp:1 imread_ of OpenCV\n\n")
        os.write(2, b"libpng warning: of libpng\nanother of ours\nand no end")
        return "done"

    assert with_native_lines(decode) == ("done", ["of OpenCV", "libpng warning: of libpng"])
    assert capfd.readouterr().err == "bar 10%\ra line of ours\nanother of ours\nand no end"


def test_what_comes_between_a_line_of_libpng_and_its_end_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> None:
        os.write(2, b"libpng error: CRC error")
        os.write(2, b"ours 1\n")  # by another thread
        os.write(2, b"ours 2\n")
        os.write(2, b"\nours 3\n")

    assert with_native_lines(decode) == (None, ["libpng error: CRC errorours 1"])
    assert capfd.readouterr().err == "ours 2\nlibpng error: CRC errorours 1\nours 3\n"


def test_each_thread_gets_the_lines_of_its_own_file_and_no_line_of_ours_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {"crc.png": (damaged(".png", 0.3), "CRC error"), "cut.bmp": (encoded(".bmp")[:2000], "end of input")}
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.png").write_bytes(encoded(".png"))

    def load(number: int) -> None:
        os.write(2, f"ours {number}\n".encode())
        name = ["crc.png", "good.png", "cut.bmp"][number % 3]
        if name == "good.png":
            assert load_image(tmp_path / name).shape == (3, 300, 400)
            return
        with pytest.raises(ImageError) as raised:
            load_image(tmp_path / name)
        others = [said for other, (_, said) in files.items() if other != name]
        assert files[name][1] in str(raised.value)
        assert not any(said in str(raised.value) for said in others)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(load, range(60)))
    # libpng ends a line in a write of its own: what came in between stands in its line.
    arrived = capfd.readouterr().err.replace("libpng error: CRC error", "").splitlines()
    assert sorted(filter(None, arrived)) == sorted(f"ours {number}" for number in range(60))


def test_lines_that_many_threads_write_at_once_all_arrive(capfd: pytest.CaptureFixture[str]) -> None:
    def write(number: int) -> None:
        os.write(2, f"ours {number}\n".encode())
        with_native_lines(lambda: os.write(2, f"within {number}\n".encode()))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(3000)))
    expected = sorted(f"{word} {number}" for word in ("ours", "within") for number in range(3000))
    assert sorted(capfd.readouterr().err.splitlines()) == expected


def test_what_is_written_too_late_is_passed_on_with_the_next_file(capfd: pytest.CaptureFixture[str]) -> None:
    """As by a thread that has begun to write and is held up until nobody decodes any more."""
    held = with_native_lines(lambda: os.dup(2))[0]
    os.write(held, b"ours\n")
    os.close(held)
    assert with_native_lines(lambda: None) == (None, [])
    assert capfd.readouterr().err == "ours\n"


def test_decoders_that_never_all_stop_hold_back_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(with_native_lines, slow)
        assert inside.wait(10)
        os.write(2, b"ours\n")
        with_native_lines(lambda: None)
        assert capfd.readouterr().err == "ours\n"
        leave.set()
        running.result()


@pytest.mark.parametrize("before", ["", "os.close(2)", "sys.stderr = None; os.close(2)"])
def test_without_a_stderr_files_are_decoded_and_refused_all_the_same(before: str, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(encoded(".png"))
    (tmp_path / "crc.png").write_bytes(damaged(".png", 0.3))
    code = (
        f"import os, sys; from lightglue.images import load_image\n{before}\n"
        "print(tuple(load_image('good.png').shape))\n"
        "try: load_image('crc.png')\n"
        "except OSError as error: print(type(error).__name__)\n"
    )
    done = run_python(code, cwd=tmp_path)
    assert done.stdout == "(3, 300, 400)\nImageError\n"
    assert done.stderr == ""
