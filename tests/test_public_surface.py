"""What users may import, and what importing does not do."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import lightglue
import lightglue_runtime

ROOT = Path(__file__).parents[1]

PUBLIC = [
    "ALIKED", "DISK", "DoGHardNet", "ImageError", "InputError", "LightGlue", "LightGlueError", "ModelError",
    "NearestNeighbor", "RaCo", "SIFT", "SuperPoint", "WeightsError", "XFeat", "__version__", "batch_to_device",
    "load_image", "match_files", "match_pair", "match_pairs", "rbd",
]  # fmt: skip
UTILS = [
    "Extractor", "ImagePreprocessor", "batch_to_device", "load_image", "map_tensor", "match_pair",
    "numpy_image_to_torch", "rbd", "read_image", "resize_image",
]  # fmt: skip
VIZ2D = [
    "add_text", "cm_BlRdGn", "cm_RdGn", "cm_grad2d", "cm_prune", "plot_images", "plot_keypoints", "plot_matches",
    "save_plot",
]  # fmt: skip


GEOMETRY = [
    "Camera", "Estimate", "EstimatorOptions", "RefineOptions", "Refined", "Statistics", "as_camera", "auc",
    "corner_error", "epipolar_error", "essential_from_pose", "estimate", "estimate_essential", "estimate_fundamental",
    "estimate_homography", "estimate_relative_pose", "fit_homography", "fundamental_from_pose",
    "normalized_epipolar_error", "pose_error", "recall_curve", "refine_matches", "rotation_error",
    "symmetric_transfer_error", "transfer_error", "translation_error",
]  # fmt: skip
EVALUATION = [
    "Benchmark", "Correspondences", "Homography", "Job", "Models", "Pair", "Protocol", "RelativePose", "Run",
    "evaluate", "load_manifest", "read_run", "summarize", "write_manifest", "write_report",
]  # fmt: skip
PARITY = [
    "LIMITS", "CheckOptions", "Cost", "FeatureDifference", "Limits", "MatchDifference", "Report", "RuntimeReport",
    "check",
]  # fmt: skip
EXPORT = [
    "ExtractorFile", "ExtractorSource", "MatcherFile", "MatcherSource", "PipelineFile", "PipelineSource",
    "load_extractor", "load_matcher", "write_bundle", "write_extractor", "write_matcher", "write_pipeline",
]  # fmt: skip


TRAINING = [
    "FinetuneOptions",
    "FinetuneResult",
    "Judge",
    "JudgeOptions",
    "Judgement",
    "LossOptions",
    "NetworkOptions",
    "OptimiserOptions",
    "RunOptions",
    "Sample",
    "Samples",
    "Trainer",
    "TrainingOptions",
    "TrainingResult",
    "Truth",
    "make_judge",
    "read_log",
    "read_options",
    "train",
    "write_report",
]
ROOMS = [
    ("training", TRAINING),
    ("geometry", GEOMETRY),
    ("evaluation", EVALUATION),
    ("export", EXPORT),
    ("parity", sorted(PARITY)),
    ("web", ["Client", "Limits", "WebOptions", "create_app", "serve"]),
]


@pytest.mark.parametrize(("module", "names"), ROOMS)
def test_the_rooms_offer_these_names_and_no_others(module, names):
    loaded = importlib.import_module(f"lightglue.{module}")
    assert sorted(loaded.__all__) == names
    assert all(getattr(loaded, name) is not None for name in names)
    with pytest.raises(AttributeError, match="nothing"):
        loaded.nothing  # noqa: B018


def test_the_package_offers_these_names_and_no_others():
    assert sorted(lightglue.__all__) == PUBLIC
    assert dir(lightglue) == PUBLIC
    for name in PUBLIC:
        assert getattr(lightglue, name) is not None
    assert set(lightglue._OWNERS) | {"__version__"} == set(PUBLIC)


@pytest.mark.parametrize(("module", "names"), [("utils", UTILS), ("viz2d", VIZ2D)])
def test_the_published_helpers_are_where_they_were(module, names):
    loaded = importlib.import_module(f"lightglue.{module}")
    assert set(names) <= set(loaded.__all__)
    assert all(getattr(loaded, name) is not None for name in loaded.__all__)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("lightglue", "LightGlue"),
        ("superpoint", "SuperPoint"),
        ("disk", "DISK"),
        ("aliked", "ALIKED"),
        ("sift", "SIFT"),
        ("dog_hardnet", "DoGHardNet"),
    ],
)
def test_the_published_modules_hold_their_classes(module, name):
    assert getattr(importlib.import_module(f"lightglue.{module}"), name) is getattr(lightglue, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="SuperGlue"):
        lightglue.SuperGlue  # noqa: B018


def test_the_version_is_the_packages():
    assert lightglue.__version__ == lightglue_runtime.__version__
    for place in (".", "runtime"):  # one number for both distributions
        assert 'version = { attr = "lightglue_runtime.__version__" }' in (ROOT / place / "pyproject.toml").read_text()


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after running `code`."""
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_imports_neither_torch_nor_matplotlib():
    loaded = modules_after("import lightglue; lightglue.__version__; dir(lightglue)")
    assert not loaded & {"torch", "numpy", "cv2", "matplotlib"}


def test_matching_does_not_import_matplotlib_or_anything_optional():
    loaded = modules_after(
        "from lightglue import LightGlue, ALIKED, DISK, match_pair, load_image; import lightglue.utils"
    )
    assert not loaded & {"matplotlib", "kornia", "torchvision", "typer", "poselib", "pycolmap"}
    assert "torch" in loaded, "what the test above looks for would be noticed"


def test_the_service_itself_loads_no_model_and_decodes_no_image():
    loaded = modules_after("from lightglue.web import create_app, serve; create_app()")
    assert "fastapi" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "PIL", "matplotlib", "multiprocessing.resource_tracker"}


def test_the_client_of_the_service_needs_no_extra():
    loaded = modules_after("from lightglue.web import Client, WebOptions; Client(); WebOptions()")
    assert not loaded & {"fastapi", "starlette", "pydantic", "uvicorn", "torch", "numpy", "cv2"}


def test_reading_runs_and_manifests_imports_no_torch():
    loaded = modules_after(
        "from lightglue.evaluation import load_manifest, read_run; from lightglue.geometry import estimate_homography"
    )
    assert not loaded & {"torch", "matplotlib", "cv2", "poselib", "pycolmap"}


def test_importing_changes_nothing_global():
    code = """
import torch, logging, warnings, cv2
def state():
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, cuda.flash_sdp_enabled(),
            torch.get_float32_matmul_precision(), torch.get_num_threads(), cv2.getNumThreads(), torch.is_grad_enabled(),
            torch.get_default_dtype(), list(logging.root.handlers), logging.root.level, list(warnings.filters))
before = state()
from lightglue import LightGlue, ALIKED, DISK, match_pair, load_image
import lightglue.utils, lightglue.viz2d, lightglue.cli
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.network import LightGlueNetwork
weights = LightGlueNetwork(LightGlueConfig(n_layers=1)).state_dict()
matcher = LightGlue(features=None, weights=weights, n_layers=1)
matcher({f'image{i}': {'keypoints': torch.rand(1, 9, 2), 'descriptors': torch.rand(1, 9, 256)} for i in (0, 1)})
after = state()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_nearest_neighbours_need_nothing_of_the_network():
    loaded = modules_after(
        "import torch; from lightglue import NearestNeighbor\n"
        "image = {'keypoints': torch.zeros(1, 3, 2), 'descriptors': torch.eye(3)[None]}\n"
        "assert len(NearestNeighbor()({'image0': image, 'image1': image})['matches'][0]) == 3"
    )
    rooms = {name for name in loaded if name.startswith("lightglue.matching.")}
    assert rooms == {
        f"lightglue.matching.{name}" for name in ("assignment", "config", "inputs", "nearest", "neighbors")
    }
