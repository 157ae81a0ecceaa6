"""Weights as float16 shards of at most 16 MB, and back to one file.

python scripts/shard_weights.py weights.safetensors FOLDER
python scripts/shard_weights.py --join FOLDER weights.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LIMIT = 15_500_000  # bytes of tensors; names and metadata come on top


def split(source: Path, folder: Path) -> None:
    """Write FOLDER/weights-0.safetensors, ...; each has the metadata of all."""
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in load_file(source).items():
        # Thresholds of the layers are compared with; the rest is multiplied.
        kept = tensor if name == "confidence_thresholds" else tensor.half()
        if size + kept.nbytes > LIMIT:
            shards.append({})
            size = 0
        shards[-1][name] = kept
        size += kept.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    for i, shard in enumerate(shards):
        save_file(shard, folder / f"weights-{i}.safetensors", {**(metadata or {}), "shards": str(len(shards))})


def join(folder: Path, target: Path) -> None:
    """Write one float32 file, which `LightGlue.load` takes."""
    paths = sorted(folder.glob("weights-*.safetensors"))
    if not paths:
        sys.exit(f"there are no shards in {folder}")
    with safe_open(paths[0], framework="pt") as file:
        metadata = file.metadata()
    expected = int(metadata.pop("shards", len(paths)))
    if len(paths) != expected:
        sys.exit(f"{folder} has {len(paths)} of {expected} shards")
    tensors = {name: tensor.float() for path in paths for name, tensor in load_file(path).items()}
    save_file(tensors, target, metadata)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--join", folder, target]:
            join(Path(folder), Path(target))
        case [source, folder] if not source.startswith("-"):
            split(Path(source), Path(folder))
        case _:
            sys.exit(__doc__)
