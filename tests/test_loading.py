"""Modules are loaded without looking for garbage, which goes on afterwards."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from lightglue.support.loading import uncollected


@pytest.mark.parametrize("was_enabled", [True, False])
def test_garbage_is_looked_for_afterwards_as_before(was_enabled: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_enabled else gc.disable)()
    try:
        with suppress(ZeroDivisionError), uncollected():
            meanwhile = gc.isenabled()
            raise ZeroDivisionError
        assert (meanwhile, gc.isenabled()) == (False, was_enabled)
    finally:
        (gc.enable if before else gc.disable)()
