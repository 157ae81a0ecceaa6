"""One step after another: forward, loss, gradients of all processes, update. Knows nothing of files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightglue.errors import InputError
from lightglue.matching.network import LightGlueNetwork
from lightglue.support.batches import batched
from lightglue.support.devices import find_device
from lightglue.support.precision import product_dtype
from lightglue.training.batches import Batch, collate
from lightglue.training.contract import Samples
from lightglue.training.distributed import World
from lightglue.training.forward import PackedPairs, PaddedPairs
from lightglue.training.initialise import chosen
from lightglue.training.losses import agreement, assignment_nll, confidence_loss, layer_weights
from lightglue.training.optimiser import Average, factor, load_state, make_optimiser, saved_state
from lightglue.training.options import LossOptions, RunOptions, TrainingOptions

__all__ = ["Figures", "PairLosses", "Step", "Trainer", "check_machine", "pair_losses"]

THRESHOLD = 0.1  # of the matches that precision and recall are of: the published default of the matcher


class PairLosses(NamedTuple):
    """The losses of P pairs; what has gradients is `total` alone."""

    total: Tensor  # (P,)
    nll: Tensor  # (P, layers)
    confidence: Tensor  # (P,)
    agreement: Tensor  # (P, 3): see `losses.Agreement`


@dataclass(frozen=True)
class Figures:
    """Means over pairs, and shares over all their keypoints."""

    pairs: int
    loss: float
    nll: tuple[float, ...]  # of each layer
    confidence: float
    precision: float  # of matches above THRESHOLD whose truth is known; NaN where there is none
    recall: float  # of true matches

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> Figures:
        """From (P, 5 + layers): `rows_of`."""
        mean = rows.mean(0) if len(rows) else np.full(rows.shape[1], math.nan)
        predicted, correct, positives = rows[:, 2:5].sum(0)
        return cls(
            len(rows),
            float(mean[0]),
            tuple(float(x) for x in mean[5:]),
            float(mean[1]),
            float(correct / predicted) if predicted else math.nan,
            float(correct / positives) if positives else math.nan,
        )


def rows_of(losses: PairLosses) -> Tensor:
    """(P, 5 + layers): total, confidence, predicted, correct, positives, likelihood of each layer."""
    first = torch.stack((losses.total.detach(), losses.confidence.detach()), 1)
    return torch.cat((first, losses.agreement, losses.nll.detach()), 1)


def pair_losses(
    network: LightGlueNetwork,
    batch: Batch,
    options: LossOptions,
    is_padded: bool = False,
    products: torch.dtype | None = None,
    length: int = 1,
) -> PairLosses:
    """The losses of each pair, every layer supervised. Pairs with an image without keypoints have none: zeros.

    is_padded: as GPUs want it, to `length` keypoints or more; the same within rounding. products: autocast of the
    layers; losses are in float32.
    """
    n_layers = len(network.transformers)
    full = [i for i in range(len(batch)) if min(batch.counts[2 * i : 2 * i + 2]) > 0]
    if len(full) < len(batch):
        others = pair_losses(network, _only(batch, full), options, is_padded, products, length) if full else None
        return _spread(others, full, len(batch), n_layers, batch.positions)
    pairs = PaddedPairs(batch, length) if is_padded else PackedPairs(batch)
    device = batch.positions.device.type
    weights = layer_weights(n_layers, options.gamma)
    kept: list[_Group] = [_Group() for _ in pairs.sides]
    with torch.autocast(device, products or torch.bfloat16, enabled=products is not None):
        for i, tensors in enumerate(pairs.layers(network)):
            with torch.autocast(device, enabled=False):
                heads = network.log_assignment[i]
                compared = pairs.groups([heads.compared(x) for x in tensors])  # type: ignore[operator]
                matchable = pairs.groups([heads.matchability(x).squeeze(-1) for x in tensors])  # type: ignore[operator]
                sure = None
                if options.confidence and i < n_layers - 1:
                    head = network.token_confidence[i].token[0]  # type: ignore[index]
                    sure = pairs.groups([head(x.detach()).squeeze(-1) for x in tensors])  # type: ignore[operator]
                for g, (group, side) in enumerate(zip(kept, pairs.sides, strict=True)):
                    projected = (*compared[g], *matchable[g])
                    judged = assignment_nll(*projected, *side, positive=options.positive)
                    group.nll.append(judged.nll)
                    group.choices.append((judged.choice0, judged.choice1))
                    if sure is not None:
                        group.logits.append(sure[g])
                    if i == n_layers - 1:
                        found = agreement(*projected, side.matches0, side.mask0, side.mask1, threshold=THRESHOLD)
                        group.agreement = torch.stack(found, 1)
    done = [group.losses(side, weights, options.confidence) for group, side in zip(kept, pairs.sides, strict=True)]
    return PairLosses(*(torch.cat(column) for column in zip(*done, strict=True)))


@dataclass
class _Group:
    """What the layers leave of a group of pairs."""

    nll: list[Tensor] = field(default_factory=list)
    choices: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    logits: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    agreement: Tensor | None = None

    def losses(self, side: Any, weights: list[float], confidence_weight: float) -> PairLosses:
        nll = torch.stack(self.nll, 1)
        total = nll @ nll.new_tensor(weights)
        confidence = torch.zeros_like(total)
        if self.logits:
            both = [
                confidence_loss([pair[k] for pair in self.logits], [pair[k] for pair in self.choices], mask)
                for k, mask in ((0, side.mask0), (1, side.mask1))
            ]
            confidence = (both[0] + both[1]) / 2
        assert self.agreement is not None
        return PairLosses(total + confidence_weight * confidence, nll, confidence, self.agreement)


def _only(batch: Batch, pairs: list[int]) -> Batch:
    """Some pairs of a batch."""
    ends = np.cumsum(batch.counts)
    rows = [np.arange(ends[i] - batch.counts[i], ends[i]) for pair in pairs for i in (2 * pair, 2 * pair + 1)]
    index = torch.from_numpy(np.concatenate(rows)).to(batch.matches.device)
    return replace(
        batch,
        numbers=tuple(batch.numbers[i] for i in pairs),
        views=tuple(batch.views[i] for i in pairs),
        counts=tuple(batch.counts[i] for pair in pairs for i in (2 * pair, 2 * pair + 1)),
        positions=batch.positions[index],
        descriptors=batch.descriptors[index],
        matches=batch.matches[index],
    )


def _spread(losses: PairLosses | None, pairs: list[int], size: int, n_layers: int, like: Tensor) -> PairLosses:
    """The losses of some pairs of a batch of `size`, and zeros for the others."""
    empty = PairLosses(*(like.new_zeros(shape) for shape in ((size,), (size, n_layers), (size,), (size, 3))))
    if losses is None:
        return empty
    rows = torch.tensor(pairs, device=like.device)
    return PairLosses(*(zero.index_copy(0, rows, own.to(zero)) for zero, own in zip(empty, losses, strict=True)))


class Step(NamedTuple):
    """What a step did."""

    rows: NDArray[np.float64]  # (pairs of this process, 5 + layers)
    lr: float
    norm: float  # of the gradient before clipping
    is_good: bool  # False: not finite, and nothing was updated
    batches: list[Batch]  # of this process, where it is not good: those to look at


class Trainer:
    """A network being trained. All state is in `tensors` and `numbers`; what `load` is given it goes on from exactly.

    Raises InputError for options that do not fit the network, the samples or the machine.
    """

    def __init__(
        self, network: LightGlueNetwork, options: TrainingOptions, samples: Samples, world: World | None = None
    ) -> None:
        self.options, self.samples, self.world = options, samples, world or World()
        run = options.run
        self.device, self.products = check_machine(run, self.world)
        self.network = network.to(self.device).train()
        frozen = chosen(network, options.network.freeze, "network.freeze")
        self.optimiser = make_optimiser(network, options.optimiser, frozen)
        self.average = Average(network, options.optimiser.ema) if options.optimiser.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.products == torch.float16)
        self.step = 0  # done
        self.bad = 0  # steps that failed
        self.is_padded = run.compile or self.device.type != "cpu"
        # A graph for each number of keypoints would take longer to compile than the run lasts.
        self.length = options.features.keypoints if run.compile else 1
        if run.compile:
            for layer in network.transformers:
                layer.compile()
        self.with_scale_ori = network.posenc.Wr.in_features == 4

    @property
    def best_network(self) -> LightGlueNetwork:
        """What is judged and written: the average where there is one."""
        return self.average.network if self.average else self.network

    @property
    def at_once(self) -> int:
        """Pairs in memory at once."""
        # A CPU's caches want some 2,000 rows: at 256 keypoints 4 pairs take 0.85 of the time of 1 by 1.
        own = max(1, 1024 // self.options.features.keypoints) if self.device.type == "cpu" else 16
        return self.options.run.at_once or own

    def numbers(self, step: int) -> list[list[int]]:
        """Of the samples that this process takes in a step: runs of as many as are in memory at once."""
        size = self.options.run.batch
        own = self.world.share(range(step * size, (step + 1) * size))
        return list(batched(own, self.at_once))

    def batches(self) -> Iterator[list[Batch]]:
        """Those of this step, of the next, and so on without end."""
        loader = _loader(self, (numbers for step in count(self.step) for numbers in self.numbers(step)))
        for step in count(self.step):
            yield [next(loader) for _ in self.numbers(step)]

    def run_step(self, batches: list[Batch], done: float) -> Step:
        """One step. done: the share of the run before it, for the learning rate."""
        lr = self._set_lr(done)
        self.optimiser.zero_grad(set_to_none=True)
        rows = [self._backward(batch.to(self.device)) for batch in batches]
        own = torch.cat(rows).double() if self.device.type != "mps" else torch.cat(rows)
        loss = own[:, 0].sum() if rows else torch.zeros((), device=self.device)
        norm, is_finite = self._reduce(loss)
        # With a scaler infinite gradients are its daily bread: it skips the step and takes a smaller scale.
        is_good = is_finite and (math.isfinite(norm) or self.scaler.is_enabled())
        looked_at: list[Batch] = []
        if is_good:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        else:
            self.bad += 1
            if self.scaler.is_enabled():
                self.scaler.update()  # or it takes the next step for this one, whose gradients are unscaled already
            failed = [
                batch for batch, found in zip(batches, rows, strict=True) if not bool(found[:, 0].isfinite().all())
            ]
            looked_at = failed or (batches if is_finite else [])
        self.step += 1
        if self.average and is_good:
            self.average.update(self.network, self.step)
        return Step(own.cpu().numpy().astype(np.float64), lr, norm, is_good, looked_at)

    def _set_lr(self, done: float) -> float:
        scale = factor(self.options.optimiser, self.step, done)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base"] * scale
        return self.options.optimiser.lr * scale

    def _backward(self, batch: Batch) -> Tensor:
        """Add the gradients of a batch; its figures, (P, 5 + layers)."""
        losses = self._losses(self.network, batch)
        mean = losses.total.sum() / self.options.run.batch
        if mean.requires_grad:
            self.scaler.scale(mean).backward()  # type: ignore[no-untyped-call]
        elif max(batch.counts, default=0) and all(batch.counts):
            raise InputError("Nothing that is trained has a part in the loss; see network.freeze and loss.confidence.")
        return rows_of(losses)

    def _losses(self, network: LightGlueNetwork, batch: Batch) -> PairLosses:
        return pair_losses(network, batch, self.options.loss, self.is_padded, self.products, self.length)

    def _reduce(self, loss: Tensor) -> tuple[float, bool]:
        """Sum gradients over all processes and clip them; their norm, and whether the loss of all is finite."""
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        if self.world.size > 1:
            for p in parameters:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            self.world.sum_([p.grad for p in parameters])
            total = loss.float().reshape(1)
            self.world.sum_([total])
            loss = total[0]
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.optimiser.clip or math.inf)
        return float(norm), bool(loss.isfinite())

    @torch.no_grad()
    def validate(self, numbers: Sequence[int]) -> Figures:
        """Figures of validation samples with the weights that would be written, shared among all processes."""
        own = self.world.share(range(len(numbers)))
        table = torch.zeros((len(numbers), 5 + len(self.network.transformers)), dtype=torch.float64)
        for places in batched(own, self.at_once):
            drawn = [(numbers[i], self.samples.validation_sample(numbers[i])) for i in places]
            batch = collate(drawn, self.samples, self.with_scale_ori).to(self.device)
            losses = self._losses(self.best_network, batch)
            table[list(places)] = rows_of(losses).cpu().double()
        if self.world.size > 1:  # zeros but where this process was: the sum is exact
            on_device = table.to(self.device)
            self.world.sum_([on_device])
            table = on_device.cpu()
        return Figures.of(table.numpy())

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and what the optimiser keeps of them, and of the average, on the CPU."""
        found = {f"network/{name}": p.detach().cpu() for name, p in self.network.named_parameters()}
        found |= {f"optimiser/{key}": t for key, t in saved_state(self.optimiser).items()}
        if self.average:
            found |= {f"average/{name}": p.detach().cpu() for name, p in self.average.network.named_parameters()}
        return found

    def state(self) -> dict[str, Any]:
        """The rest of the state, as JSON holds it."""
        return {"step": self.step, "bad": self.bad, "scaler": self.scaler.state_dict()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same options. Raises StoreError where it does not fit."""
        for kind, network in (("network", self.network), ("average", self.average and self.average.network)):
            if network:
                for name, p in network.named_parameters():
                    p.copy_(tensors[f"{kind}/{name}"])
        own = {key.removeprefix("optimiser/"): t for key, t in tensors.items() if key.startswith("optimiser/")}
        load_state(self.optimiser, own)
        self.step, self.bad = int(state["step"]), int(state["bad"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def check_machine(run: RunOptions, world: World) -> tuple[torch.device, torch.dtype | None]:
    """The device of a process, and the dtype of products there, None for float32.

    Raises InputError where the machine has no such device, or the device no such products.
    """
    spreads = world.size > 1 and run.device in ("auto", "cuda") and torch.cuda.is_available()
    device = find_device(f"cuda:{world.local}" if spreads else run.device)
    return device, _products(run, device)


def _products(run: RunOptions, device: torch.device) -> torch.dtype | None:
    if run.precision == "float16":
        if device.type != "cuda":
            raise InputError(f"run.precision is float16, which needs a CUDA device; on {device.type} take bfloat16.")
        return torch.float16
    if run.precision == "bfloat16":
        return torch.bfloat16
    fast = product_dtype(device, mp=run.precision == "auto")
    return torch.bfloat16 if fast is not None and device.type != "mps" else None


class _Numbered:
    """Samples as torch's loader takes them: an index is a list of numbers."""

    def __init__(self, samples: Samples, with_scale_ori: bool) -> None:
        self.samples, self.with_scale_ori = samples, with_scale_ori

    def __getitem__(self, numbers: list[int]) -> Batch:
        drawn = [(k, self.samples.sample(k)) for k in numbers]
        return collate(drawn, self.samples, self.with_scale_ori)


def _loader(trainer: Trainer, numbers: Iterator[list[int]]) -> Iterator[Batch]:
    """The batches of these samples, in order; made ahead by `run.workers` processes."""
    data = _Numbered(trainer.samples, trainer.with_scale_ori)
    workers = trainer.options.run.workers
    if not workers:
        return (data[each] for each in numbers)
    loader: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
        data,  # type: ignore[arg-type]
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=trainer.device.type == "cuda",
        prefetch_factor=4,
    )
    return iter(loader)
