"""Tensors derived from parameters: made once, made again when the parameters have changed."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightglue.support.derived import Derived, is_plain, wants_gradients


def doubled(module: nn.Conv2d, option: object) -> Tensor:
    return module.weight * 2


def conv() -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 2)


CHANGES: dict[str, Callable[[nn.Conv2d], object]] = {
    "in place": lambda m: m.weight.mul_(2),
    "a row behind torch's back": lambda m: m.weight.data[2].add_(1),
    "a bias behind torch's back": lambda m: m.bias.data[3].add_(1),
    "another parameter": lambda m: setattr(m, "weight", nn.Parameter(m.weight.clone())),
    "a state dict": lambda m: m.load_state_dict(m.state_dict()),
    "dtype": lambda m: m.double(),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_the_result_is_kept_until_a_parameter_changes(change, channels_last):
    module, derived = conv(), Derived(doubled)
    if channels_last:
        module = module.to(memory_format=torch.channels_last)
    first = derived.of(module, list(module.parameters()))
    assert derived.of(module, list(module.parameters())) is first
    with torch.no_grad():
        CHANGES[change](module)
    again = derived.of(module, list(module.parameters()))
    assert again is not first
    assert torch.equal(again, module.weight * 2)
    assert derived.of(module, list(module.parameters())) is again


def test_the_documented_way_makes_any_edit_count():
    module, derived = conv(), Derived(doubled)
    derived.of(module, [module.weight])
    module.weight.data[0, 1, 1, 0] = 7
    module.load_state_dict(module.state_dict())
    assert torch.equal(derived.of(module, [module.weight]), module.weight * 2)


def test_another_option_is_another_result():
    module, derived = conv(), Derived(lambda m, factor: m.weight * factor)
    assert torch.equal(derived.of(module, [module.weight], 3), module.weight * 3)
    assert torch.equal(derived.of(module, [module.weight], 5), module.weight * 5)


def test_threads_make_it_once_and_never_see_half_of_it():
    made: list[float] = []

    def slowly(module: nn.Conv2d, option: object) -> Tensor:
        made.append(float(module.weight[0, 0, 0, 0]))
        time.sleep(0.05)
        return module.weight * 2

    module, derived = conv(), Derived(slowly)
    found: list[Tensor] = []
    for round_ in range(2):
        threads = [threading.Thread(target=lambda: found.append(derived.of(module, [module.weight]))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == round_ + 1
        assert all(torch.equal(result, module.weight * 2) for result in found)
        found.clear()
        with torch.no_grad():
            module.weight.add_(1)


def test_copies_start_with_nothing():
    module, derived = conv(), Derived(doubled)
    first = derived.of(module, [module.weight])
    other = copy.deepcopy(derived).of(module, [module.weight])
    assert other is not first
    assert torch.equal(other, first)


def test_a_hook_or_another_kind_of_module_is_not_plain():
    module = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    kinds = (nn.Sequential, nn.Linear, nn.GELU)
    assert is_plain(module, kinds)
    assert not is_plain(module, kinds[:2])
    handle = module[0].register_forward_pre_hook(lambda *_: None)
    assert not is_plain(module, kinds)
    handle.remove()
    assert is_plain(module, kinds)


def test_gradients_are_wanted_where_autograd_is_on_and_a_tensor_asks():
    plain, asking = torch.zeros(1), torch.zeros(1, requires_grad=True)
    assert wants_gradients([plain], [asking])
    assert not wants_gradients([plain], [])
    with torch.no_grad():
        assert not wants_gradients([asking])
