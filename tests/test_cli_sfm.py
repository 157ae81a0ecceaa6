"""`lightglue sfm` and `lightglue map`: what is said on the command line, and what they say."""

from __future__ import annotations

from typing import get_args

import pytest

pytest.importorskip("pycolmap")

from typer.testing import CliRunner

from lightglue.cli import stages
from lightglue.cli.app import app
from lightglue.errors import InputError
from lightglue.sfm.colmap.cameras import CameraMode
from lightglue.sfm.stages.pairs import SOURCES
from lightglue.sfm.stages.reconstruct import Mapper


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def test_the_names_on_the_command_line_are_those_of_the_stages():
    """They stand there once more, so that `--help` loads no torch."""
    assert stages.SOURCES == SOURCES
    assert get_args(CameraMode) == stages.SHARES
    assert get_args(Mapper) == stages.MAPPERS


def test_the_example_of_a_camera_in_the_help_is_one(capsys):
    assert stages._params("PINHOLE:920,920,511.5,383.5") == ("PINHOLE", (920, 920, 511.5, 383.5))


@pytest.mark.parametrize("camera", ["PINHOLE", "PINHOLE:", "pinhole:1,2,3,4", "PINHOLE:1,x", ""])
def test_what_is_no_camera_is_refused_with_an_example(tmp_path, camera):
    told = run("sfm", tmp_path, "-o", tmp_path / "map", "--camera", camera)
    assert told.exit_code == 2
    assert "MODEL:PARAMS" in told.output


def test_an_address_without_ray_is_refused_not_ignored():
    with pytest.raises(InputError, match="--engine ray only"):
        stages.engine_of("local", "127.0.0.1:6379")
