"""The tools of the fuzzed tests."""

import time

import pytest

from tests.helpers.fuzzing import mutations
from tests.helpers.limits import within


def test_a_hang_is_no_damage():
    """Code that takes any exception for a damaged file cannot take this one."""
    with pytest.raises(pytest.fail.Exception, match="took more than 1 s"), within(1):
        try:
            time.sleep(3)
        except Exception:  # noqa: BLE001 - as readers of images do
            return


def test_a_seed_gives_the_same_damage():
    assert list(mutations(bytes(range(100)), 1, 40)) == list(mutations(bytes(range(100)), 1, 40))
    assert list(mutations(bytes(range(100)), 1, 40)) != list(mutations(bytes(range(100)), 2, 40))
