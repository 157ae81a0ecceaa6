"""Nested containers of tensors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from lightglue import utils
from lightglue.containers import batch_to_device, map_tensor, rbd
from lightglue.errors import InputError


def test_map_tensor_reaches_every_tensor_and_nothing_else() -> None:
    array = np.ones(2)
    nested = {
        "tensor": torch.ones(2),
        "list": [torch.ones(1), "text", 3],
        "tuple": (torch.ones(1), None),
        "mapping": OrderedDict(inner={"deep": torch.ones(3)}),
        "array": array,
        "bytes": b"raw",
    }
    doubled = map_tensor(nested, lambda t: t * 2)
    assert torch.equal(doubled["tensor"], torch.full((2,), 2.0))
    assert torch.equal(doubled["list"][0], torch.full((1,), 2.0))
    assert doubled["list"][1:] == ["text", 3]
    assert torch.equal(doubled["tuple"][0], torch.full((1,), 2.0))
    assert doubled["tuple"][1] is None
    assert torch.equal(doubled["mapping"]["inner"]["deep"], torch.full((3,), 2.0))
    assert doubled["array"] is array
    assert doubled["bytes"] == b"raw"


def test_map_tensor_leaves_its_input_alone() -> None:
    nested = {"a": [torch.ones(2)]}
    map_tensor(nested, lambda t: t * 2)
    assert torch.equal(nested["a"][0], torch.ones(2))


def test_map_tensor_takes_a_bare_tensor_and_the_function_may_return_anything() -> None:
    assert map_tensor(torch.ones(2, 3), lambda t: tuple(t.shape)) == (2, 3)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta"])
def test_batch_to_device_moves_and_detaches(device: Any) -> None:
    batch = {"a": torch.ones(2, requires_grad=True), "b": [torch.ones(1)], "name": "pair"}
    moved = batch_to_device(batch, device)
    assert moved["a"].device == moved["b"][0].device == torch.device(device)
    assert not moved["a"].requires_grad
    assert moved["name"] == "pair"
    assert batch["a"].requires_grad


def test_batch_to_device_defaults_to_the_cpu() -> None:
    assert batch_to_device({"a": torch.ones(1)})["a"].device.type == "cpu"


def test_rbd_takes_the_first_of_tensors_arrays_and_lists() -> None:
    data = {
        "keypoints": torch.arange(6.0).view(1, 3, 2),
        "array": np.arange(4).reshape(1, 4),
        "matches": [torch.zeros(5, 2)],
        "stop": 7,
        "scalar": torch.tensor(3),
        "array_scalar": np.array(3),
        "name": "pair",
    }
    first = rbd(data)
    assert first["keypoints"].shape == (3, 2)
    assert first["array"].tolist() == [0, 1, 2, 3]
    assert first["matches"].shape == (5, 2)
    assert (first["stop"], first["scalar"], first["array_scalar"], first["name"]) == (7, 3, 3, "pair")
    assert data["keypoints"].shape == (1, 3, 2)


@pytest.mark.parametrize("nothing", [torch.zeros(0, 3, 2), np.zeros((0, 2)), []])
def test_rbd_names_an_empty_batch(nothing: object) -> None:
    with pytest.raises(InputError, match="'keypoints' holds a batch of nothing"):
        rbd({"keypoints": nothing})


def test_utils_has_the_published_names() -> None:
    published = {
        "Extractor",
        "ImagePreprocessor",
        "batch_to_device",
        "load_image",
        "map_tensor",
        "match_pair",
        "numpy_image_to_torch",
        "rbd",
        "read_image",
        "resize_image",
    }
    assert set(utils.__all__) == published
    assert all(hasattr(utils, name) for name in published)
