"""Checkpoints of LightGlue: the published layouts, and our own self-describing safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightglue.errors import InputError, WeightsError
from lightglue.matching.calibration import Calibration
from lightglue.matching.config import LightGlueConfig
from lightglue.matching.overlap import Coefficients
from lightglue.support.checks import check_real
from lightglue.support.files import os_reason, whole

__all__ = ["Description", "Fitted", "adapt", "infer_architecture", "read_description", "save"]

FORMAT = "lightglue-1"  # value of the metadata key "format"

# Entries of published files that the network has no use for: a leftover of training in disk_lightglue.pth.
UNUSED = re.compile(r"log_assignment\.\d+\.r$")
LAYER = re.compile(r"(transformers|log_assignment|token_confidence)\.(\d+)\.")


@dataclass(frozen=True)
class Fitted:
    """What was fitted to the parameters once they were trained. None: it was not, or could not be."""

    overlap: Coefficients | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Description:
    """What a self-describing file says of itself."""

    config: dict[str, Any]  # options of LightGlueConfig, without the weights
    features: str | None  # feature type
    licence: str | None  # SPDX name
    fitted: Fitted | None = None  # None: it says nothing, as files of earlier versions
    record: Mapping[str, Any] | None = None  # how the weights were trained: images, licences, options, figures


def adapt(state: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """A published state dict under today's names, cut to the first `n_layers` layers.

    Older files (disk_lightglue.pth) keep the blocks apart, `self_attn.3.*` for `transformers.3.self_attn.*`;
    glue-factory prefixes the matcher's entries with `matcher.`. Entries known to be unused are dropped.
    """
    if any(key.startswith("matcher.") for key in state):
        state = {k.removeprefix("matcher."): v for k, v in state.items() if k.startswith("matcher.")}
    kept: dict[str, Tensor] = {}
    for key, value in state.items():
        name = re.sub(r"^(self_attn|cross_attn)\.(\d+)\.", r"transformers.\2.\1.", key)
        layer = LAYER.match(name)
        last = n_layers - 1 if layer and layer[1] == "token_confidence" else n_layers
        if UNUSED.match(name) or (layer and int(layer[2]) >= last):
            continue
        if name == "confidence_thresholds":
            continue  # follow from the number of layers
        kept[name] = value
    return kept


def infer_architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options that a state dict (after `adapt`) was made with, as far as its shapes show."""
    found: dict[str, Any] = {}
    if "posenc.Wr.weight" in state and "transformers.0.self_attn.out_proj.weight" in state:
        d = state["transformers.0.self_attn.out_proj.weight"].shape[0]
        frequencies, position_dim = state["posenc.Wr.weight"].shape
        projection = state.get("input_proj.weight")
        found = {
            "input_dim": d if projection is None else projection.shape[1],
            "descriptor_dim": d,
            "num_heads": d // (2 * frequencies),
            "add_scale_ori": position_dim == 4,
            "n_layers": 1 + max(int(m[2]) for k in state if (m := LAYER.match(k)) and m[1] == "transformers"),
        }
    return found


def save(
    path: Path,
    network: nn.Module,
    config: LightGlueConfig,
    features: str | None,
    licence: str | None,
    *,
    fitted: Fitted | None = None,
    record: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write weights and description in one safetensors file, whole or not at all.

    fitted, record: see `Description`; record must be JSON. dtype: of the numbers in the file, where it is not the
    network's; float16 halves it. Raises WeightsError.
    """
    options = asdict(config)
    del options["weights"]
    metadata = {"format": FORMAT, "config": json.dumps(options)}
    metadata |= {k: v for k, v in {"features": features, "licence": licence}.items() if v is not None}
    if fitted is not None:
        metadata |= {name: json.dumps(value, sort_keys=True) for name, value in asdict(fitted).items()}
    if record is not None:
        metadata["training"] = json.dumps(record, sort_keys=True)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in network.state_dict().items()}
    try:
        if not path.parent.is_dir():  # may be a slip: no folder is made
            raise FileNotFoundError(f"there is no folder {path.parent}")
        with whole(path) as part:
            save_file(tensors, part, metadata)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"could not write {path}: {os_reason(error)}") from error


def read_description(path: Path) -> Description | None:
    """The description in a safetensors file of ours; None where the file is of another kind."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            return None
        config, fitted = json.loads(metadata["config"]), _fitted(metadata)
        record = json.loads(metadata["training"]) if "training" in metadata else None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, InputError) as error:
        raise WeightsError(f"{path} is not a readable LightGlue file: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is not a readable LightGlue file: its configuration is {config!r}")
    if record is not None and not isinstance(record, dict):
        raise WeightsError(f"{path} is not a readable LightGlue file: its training record is {record!r:.80}")
    return Description(config, metadata.get("features"), metadata.get("licence"), fitted, record)


def _fitted(metadata: Mapping[str, str]) -> Fitted | None:
    """What the file's metadata have of it. Raises TypeError, ValueError or InputError for what is none."""
    if "overlap" not in metadata:
        return None
    overlap, calibration = (json.loads(metadata.get(name, "null")) for name in ("overlap", "calibration"))
    if overlap is not None:
        for name in ("constant", "amount", "share"):
            check_real(f"overlap: {name}", overlap[name], "a finite number")
    return Fitted(
        None if overlap is None else Coefficients(**overlap),
        None if calibration is None else Calibration(**calibration),
    )
