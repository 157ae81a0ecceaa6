"""RaCo as a graph, after `lightglue.extractors.raco` and `raco_network`, with ALIKED's descriptors."""

from __future__ import annotations

import numpy as np

from lightglue.export.builder import GraphBuilder, Value
from lightglue.export.extractors.aliked import AlikedGraph, Grid, on_grid, score_head
from lightglue.export.extractors.keypoints import (
    Found,
    Request,
    best,
    candidates,
    flat_index,
    refine,
    sample,
    window_max,
)
from lightglue.export.extractors.layers import conv, kernel, merged, pool
from lightglue.extractors.aliked_network import AlikedNetwork
from lightglue.extractors.raco import RacoConfig
from lightglue.extractors.raco_network import DEVIATION, MEAN, RacoNetwork

__all__ = ["write_raco"]


def write_raco(
    g: GraphBuilder,
    network: RacoNetwork,
    aliked: AlikedNetwork,
    options: RacoConfig,
    image: Value,
    request: Request,
) -> Found:
    """An image (1, 3, H, W) in [0, 1] to its keypoints."""
    describing = AlikedGraph(g, aliked, image)
    with g.scope("raco"):
        grid = on_grid(g, image)
        logits = grid.cropped(g, _logits(g, network, grid))
        flat = g("Reshape", logits, g.integers(-1))
        scores = g("Reshape", g("Softmax", flat, axis=0), g("Shape", logits))
        width = g("Gather", grid.inner, g.constant(np.int64(1)))
        radius = options.nms_radius // 2  # the option is a window's side
        positive = g("Greater", scores, g.floats(0))
        pixels = candidates(g, g("And", g("Equal", scores, window_max(g, scores, radius)), positive))
        values = g("Gather", g("Reshape", scores, g.integers(-1)), flat_index(g, pixels, width))
        pixels = g("Gather", pixels, best(g, values, request.max_keypoints), axis=0)
        keypoints = _refined(g, logits, pixels, width, describing.extent, radius, options)
        found = g("Reshape", sample(g, scores, keypoints, describing.extent, outside="border"), g.integers(-1))
        # The threshold is for the scores at the refined positions.
        unlimited = g("LessOrEqual", request.min_score, g.floats(0))
        kept = g("NonZero", g("Or", g("Greater", found, request.min_score), unlimited))
        kept = g("Reshape", kept, g.integers(-1))
        keypoints, found = g("Gather", keypoints, kept, axis=0), g("Gather", found, kept)
    return Found(keypoints, describing.describe(keypoints), found)


def _logits(g: GraphBuilder, network: RacoNetwork, grid: Grid) -> Value:
    """(1, 1, H', W')."""
    n = network
    mean, deviation = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    x = g("Div", g("Sub", grid.image, g.constant(mean, "raco/mean")), g.constant(deviation, "raco/deviation"))
    for i, (layer, norm) in enumerate(((n.block1.conv1, n.block1.bn1), (n.block1.conv2, n.block1.bn2)), start=1):
        x = g("Selu", conv(g, f"raco/block1/conv{i}", x, merged(layer, norm)))
    fine, levels = x, []
    for number, side, block, project in (
        (2, 2, n.block2, n.conv2),
        (3, 4, n.block3, n.conv3),
        (4, 4, n.block4, n.conv4),
    ):
        name, below = f"raco/block{number}", pool(g, x, side)
        inner = g("Selu", conv(g, f"{name}/conv1", below, merged(block.conv1, block.bn1)))
        inner = conv(g, f"{name}/conv2", inner, merged(block.conv2, block.bn2))
        x = g("Selu", g("Add", inner, conv(g, f"{name}/match_dims", below, kernel(block.match_dims))))
        levels.append(g("Selu", conv(g, f"raco/conv{number}", x, kernel(project))))
    return score_head(g, "raco/score_head", n.score_head, (fine, kernel(n.conv1)), levels, grid.size)


def _refined(
    g: GraphBuilder, logits: Value, pixels: Value, width: Value, extent: Value, radius: int, options: RacoConfig
) -> Value:
    """Positions (K, 2): what lies outside of the map counts as a logit of 0, and no position leaves the image."""
    if not options.subpixel_sampling:
        return g.cast(pixels, "float32")
    flat = g("Reshape", g("Pad", logits, g.integers(*[0, 0, radius, radius] * 2)), g.integers(-1))
    moved = g("Add", pixels, g.integers(radius))
    wider = g("Add", width, g.constant(np.int64(2 * radius)))
    refined = refine(g, flat, moved, wider, radius, options.subpixel_temp)
    refined = g("Max", g("Sub", refined, g.floats(radius)), g.floats(-0.5))
    return g("Min", refined, g("Sub", extent, g.floats(0.5)))
