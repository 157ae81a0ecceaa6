"""Code written for the published package runs unchanged.

The calls below follow how cvg/LightGlue's README, hloc (`hloc/extractors`, `hloc/matchers`, `hloc/match_features.py`)
and glue-factory (`gluefactory/models/matchers/lightglue_pretrained.py`) use it. Pictures are small, to be quick.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import lightglue
from lightglue import ALIKED, DISK, LightGlue, match_pair
from lightglue.utils import load_image, numpy_image_to_torch, rbd


@pytest.fixture(scope="module")
def paths(image_path):
    return [image_path("montmartre", i) for i in (0, 1)]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(("extractor_class", "features"), [(ALIKED, "aliked"), (DISK, "disk")])
def test_the_readmes_minimal_script(extractor_class, features, paths):
    extractor = extractor_class(max_num_keypoints=256).eval()
    matcher = LightGlue(features=features).eval()
    image0, image1 = (load_image(path, resize=320) for path in paths)

    feats0 = extractor.extract(image0)
    feats1 = extractor.extract(image1, resize=None)
    matches01 = matcher({"image0": feats0, "image1": feats1})
    feats0, feats1, matches01 = [rbd(x) for x in [feats0, feats1, matches01]]
    matches = matches01["matches"]
    points0 = feats0["keypoints"][matches[..., 0]]
    points1 = feats1["keypoints"][matches[..., 1]]

    assert len(matches) > 20
    assert points0.shape == points1.shape == (len(matches), 2)
    assert matches01["scores"].shape == (len(matches),)
    assert (matches01["scores"] > 0.1).all()
    w, h = feats0["image_size"].tolist()
    assert ((points0 >= -0.5) & (points0 < torch.tensor([w, h]))).all()

    again0, _again1, again01 = match_pair(extractor, matcher, image0, image1, resize=None)
    assert again0["keypoints"].shape[1:] == (2,)
    assert again01["matches"].shape[1:] == (2,)


def test_the_readmes_configurations():
    matcher = LightGlue(features="disk", depth_confidence=-1, width_confidence=-1).eval()
    assert (matcher.conf.depth_confidence, matcher.conf.width_confidence) == (-1, -1)
    matcher = LightGlue(features="disk", depth_confidence=0.9, width_confidence=0.95)
    matcher.pruning_keypoint_thresholds = dict.fromkeys(matcher.pruning_keypoint_thresholds, -1)  # its benchmark.py
    assert matcher.pruning_min_kpts(torch.device("cuda")) == -1
    assert matcher.to("cpu") is matcher
    assert matcher.eval() is matcher


def test_hloc_extracts_and_matches(paths):
    """hloc's own classes wrap ours; features go through float16 HDF5 files with descriptors transposed."""
    conf = {"name": "aliked", "model_name": "aliked-n16", "max_num_keypoints": 200, "detection_threshold": -1}
    conf.pop("name")
    extractor = ALIKED(nms_radius=2, **conf).eval()
    stored = []
    for path in paths:
        image = load_image(path, resize=320)[None]
        features = extractor({"image": image})
        prediction = {
            "keypoints": list(features["keypoints"]),
            "scores": list(features["keypoint_scores"]),
            "descriptors": [f.t() for f in features["descriptors"]],
        }
        arrays = {k: v[0].detach().numpy().astype(np.float16) for k, v in prediction.items()}
        stored.append({**arrays, "image_size": np.array(image.shape[:1:-1])})

    matcher = LightGlue("aliked", name="lightglue", depth_confidence=0.95, width_confidence=0.99)
    data = {}
    for i, arrays in enumerate(stored):
        data |= {f"{k}{i}": torch.from_numpy(v.__array__()).float()[None] for k, v in arrays.items()}
        data[f"image{i}"] = torch.empty((1, 1, *tuple(arrays["image_size"])[::-1]))
        data[f"descriptors{i}"] = data[f"descriptors{i}"].transpose(-1, -2)
    found = matcher.eval()({f"image{i}": {k[:-1]: v for k, v in data.items() if k[-1] == str(i)} for i in (0, 1)})
    matches = found["matches0"][0].cpu().short().numpy()
    scores = found["matching_scores0"][0].cpu().half().numpy()
    assert matches.shape == scores.shape == (200,)
    assert (matches > -1).sum() > 20


def test_glue_factory_builds_and_calls_the_matcher(paths):
    """All defaults are handed back, with the base model's own keywords; a view holds the picture and its scales."""
    conf = {
        "features": "disk",
        **lightglue.LightGlue.default_conf,
        "trainable": False,
        "freeze_batch_normalization": False,
        "timeit": False,
        "compile": False,
    }
    net = lightglue.LightGlue(conf.pop("features"), **conf)
    extractor = DISK(max_num_keypoints=200, force_num_keypoints=False, trainable=False)
    data = {}
    for i, path in enumerate(paths):
        image = load_image(path, resize=320)[None]
        features = extractor({"image": image})
        data[f"view{i}"] = {
            "image": image,
            "scales": torch.ones(1, 2),
            "image_size": torch.tensor(image.shape[:1:-1])[None],
        }
        data |= {f"{k}{i}": v for k, v in features.items()}
    views = [{**data[f"view{i}"], **{k: data[k + str(i)] for k in ("keypoints", "descriptors")}} for i in (0, 1)]
    found = net({"image0": views[0], "image1": views[1]})
    assert set(found) >= {"matches0", "matches1", "matching_scores0", "matching_scores1"}
    assert (found["matches0"] > -1).sum() > 20


def test_an_image_from_opencv(paths):
    import cv2

    array = cv2.imread(str(paths[0]))[:200, :300, ::-1]
    features = DISK(max_num_keypoints=50).extract(numpy_image_to_torch(array), resize=None)
    assert features["image_size"].tolist() == [[300, 200]]


def test_pictures_of_the_notebook(tmp_path, paths):
    import matplotlib as mpl

    mpl.use("Agg")
    from lightglue import viz2d

    image = load_image(paths[0], resize=200)
    points = torch.tensor([[10.0, 20.0], [100.0, 50.0]])
    viz2d.plot_images([image, image])
    viz2d.plot_matches(points, points, color="lime", lw=0.2)
    viz2d.add_text(0, "Stop after 4 layers", fs=20)
    viz2d.plot_keypoints([points, points], colors=[viz2d.cm_prune(torch.tensor([1, 9]))] * 2, ps=6)
    viz2d.save_plot(tmp_path / "matches.png")
    assert (tmp_path / "matches.png").stat().st_size > 1000
    mpl.pyplot.close("all")
