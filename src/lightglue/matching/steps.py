"""What the engine asks of a network, over packed pairs: rearranged for speed, or as its modules stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.matching.assignment import Assignment, mutual_matches
from lightglue.matching.folding import FoldedLayer
from lightglue.matching.in_blocks import run_layer_in_blocks, suits_blocks
from lightglue.matching.inputs import ImageKeypoints
from lightglue.matching.network import LightGlueNetwork
from lightglue.matching.packing import MIN_ROWS, PackedPairs, Workspace, run_layer
from lightglue.support.buffers import keep_freed_memory

__all__ = ["FoldedSteps", "ImageTokens", "ModuleSteps", "Steps"]


@dataclass(frozen=True)
class ImageTokens:
    """The keypoints of one image as the first layer takes them."""

    tokens: Tensor  # (N, d) float32
    rotation: Tensor  # (N, e / 2) complex64


class Steps:
    """The row-wise parts of a network, all rows of a batch at once; a subclass adds the layers."""

    def __init__(self, network: LightGlueNetwork) -> None:
        self.network = network
        self.n_layers = len(network.transformers)

    def embed(self, image: ImageKeypoints) -> ImageTokens:
        """Project the descriptors and encode the positions: what is the same in all pairs of the image."""
        n = len(image.positions)
        spare = (0, 0, 0, max(0, MIN_ROWS - n))
        tokens = self.network.input_proj(F.pad(image.descriptors, spare))[:n]
        return ImageTokens(tokens, _rotation(self.network.posenc(F.pad(image.positions, spare)))[:n])

    def run(self, index: int, packed: PackedPairs) -> PackedPairs:
        """The pairs after the layer at `index`."""
        raise NotImplementedError

    def confidence(self, index: int, packed: PackedPairs) -> Tensor:
        """(R,) in [0, 1]: how sure each row is after the layer at `index`, which is not the last."""
        found: Tensor = self.network.token_confidence[index].of(packed.tokens)  # type: ignore[operator]
        return found

    def matchability(self, index: int, packed: PackedPairs) -> Tensor:
        """(R,) in [0, 1]."""
        found: Tensor = self.network.log_assignment[index].get_matchability(packed.tokens)  # type: ignore[operator]
        return found

    def assign(self, index: int, x0: Tensor, x1: Tensor, threshold: float) -> Assignment:
        """The matches of (M, d) and (N, d) tokens after the layer at `index`; M and N at least 1."""
        found: Assignment = self.network.log_assignment[index].matches(x0, x1, threshold)  # type: ignore[operator]
        return found


class FoldedSteps(Steps):
    """The folded layers, which write the tokens over: for inference.

    layers: the network's, in the precision that their products are to have; decisions keep the network's.
    """

    def __init__(self, network: LightGlueNetwork, layers: Sequence[FoldedLayer], attention_dtype: torch.dtype) -> None:
        super().__init__(network)
        self.layers, self.attention_dtype = layers, attention_dtype
        self._workspace: Workspace | None = None

    def run(self, index: int, packed: PackedPairs) -> PackedPairs:
        """The pairs after the layer at `index`, in the memory that they were in."""
        if suits_blocks(packed.tokens.device, self.layers[0].self_attn.last.dtype):
            if index == 0:
                keep_freed_memory(packed.tokens)
            run_layer_in_blocks(self.layers[index], packed)
            return packed
        if index == 0 or self._workspace is None:
            self._workspace = Workspace(packed, self.layers[0].self_attn.last.dtype)
        run_layer(self.layers[index], packed, self._workspace, self.attention_dtype)
        return packed


class ModuleSteps(Steps):
    """The network's own modules, called pair by pair as published, (1, N, d) each: with hooks, and with gradients.

    products: reduced precision of the layers' products, if any; the residual stream keeps the network's.
    """

    def __init__(self, network: LightGlueNetwork, products: torch.dtype | None) -> None:
        super().__init__(network)
        self.products = products

    def embed(self, image: ImageKeypoints) -> ImageTokens:
        """See `Steps.embed`."""
        tokens = self.network.input_proj(image.descriptors[None])[0]
        return ImageTokens(tokens, _rotation(self.network.posenc(image.positions[None])[:, 0]))

    def run(self, index: int, packed: PackedPairs) -> PackedPairs:
        """See `Steps.run`."""
        slices, updated = packed.slices(), []
        for rows0, rows1 in zip(slices[::2], slices[1::2], strict=True):
            images = [(packed.tokens[rows][None], _encoding(packed.rotation[rows])) for rows in (rows0, rows1)]
            with torch.autocast(packed.tokens.device.type, self.products, enabled=self.products is not None):
                updated += [tokens[0] for tokens in self.layer(index, *images)]
        return replace(packed, tokens=torch.cat([*updated, packed.tokens[sum(packed.counts) :]]))

    def layer(self, index: int, image0: tuple[Tensor, Tensor], image1: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The layer over one pair of (tokens (1, N, d), encoding (2, 1, 1, N, e)); gives the tokens."""
        (x0, encoding0), (x1, encoding1) = image0, image1
        found: tuple[Tensor, Tensor] = self.network.transformers[index](x0, x1, encoding0, encoding1)
        return found

    def confidence(self, index: int, packed: PackedPairs) -> Tensor:
        """See `Steps.confidence`."""
        slices, found = packed.slices(), []
        for rows0, rows1 in zip(slices[::2], slices[1::2], strict=True):
            sure = self.network.token_confidence[index](packed.tokens[rows0][None], packed.tokens[rows1][None])
            found += [one[0] for one in sure]
        return torch.cat([*found, packed.tokens.new_zeros(len(packed.tokens) - sum(packed.counts))])

    def assign(self, index: int, x0: Tensor, x1: Tensor, threshold: float) -> Assignment:
        """See `Steps.assign`."""
        scores, _ = self.network.log_assignment[index](x0[None], x1[None])
        return mutual_matches(scores[0, :-1, :-1], threshold)


def _rotation(encoding: Tensor) -> Tensor:
    """(2, 1, N, e), cosines and sines each twice -> (N, e / 2) complex."""
    cos, sin = encoding[:, 0, :, ::2]
    return torch.complex(cos, sin)


def _encoding(rotation: Tensor) -> Tensor:
    """(N, e / 2) complex -> (2, 1, 1, N, e), as the layers take it."""
    return torch.stack((rotation.real, rotation.imag))[:, None, None].repeat_interleave(2, -1)
