"""Time exported extractors in ONNX Runtime and OpenVINO against torch: process CPU ms on one thread, the least of some.

python scripts/extractor_times.py --features xfeat aliked disk --repeat 4
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
import torch.nn.functional as F

from lightglue import load_image
from lightglue.export import ExtractorSource, load_extractor, write_extractor

SIZES = ((480, 640), (768, 1024))
COUNT = 1024
THRESHOLD = {"aliked": -1, "disk": 0, "xfeat": 0, "superpoint": -1, "raco": -1}  # with which the best are kept


def runners(extractor: Any, path: Path) -> dict[str, Any]:
    """Name -> a function of an image (1, 3, H, W)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = {"max_keypoints": np.array(COUNT), "min_score": np.array(0, np.float32)}
    return {
        "onnx": lambda image: session.run(None, {"image": image.numpy(), **request}),
        "openvino": lambda image: compiled({"image": image.numpy(), **request}),
        "torch": lambda image: extractor({"image": image}),
    }


def least(run: Any, image: torch.Tensor, repeat: int) -> float:
    """CPU ms, after one run that is not counted."""
    found = []
    for _ in range(repeat + 1):
        begin = time.process_time()
        with torch.no_grad():
            run(image)
        found.append(1000 * (time.process_time() - begin))
    return min(found[1:])


def main() -> None:
    """Print a line for each extractor and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, default=Path("assets/montmartre_close.jpg"))
    parser.add_argument("--features", nargs="+", default=["xfeat", "aliked", "disk"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--repeat", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    image = load_image(given.image)[None]
    for features in given.features:
        extractor = load_extractor(ExtractorSource(features, weights=given.weights))
        extractor.conf.max_num_keypoints = COUNT
        extractor.conf.detection_threshold = THRESHOLD[features.partition("-")[0]]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "extractor.onnx"
            write_extractor(extractor, path)
            for height, width in SIZES:
                small = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
                each = {name: least(run, small, given.repeat) for name, run in runners(extractor, path).items()}
                print(f"{features} {width} x {height}: ", {name: round(value) for name, value in each.items()})


if __name__ == "__main__":
    main()
