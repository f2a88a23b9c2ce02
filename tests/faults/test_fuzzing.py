"""Tests of the fuzzing helpers themselves."""

import time

import pytest

from tests.helpers.fuzzing import mutations
from tests.helpers.limits import within


def test_code_that_catches_every_exception_cannot_hide_a_hang():
    with pytest.raises(pytest.fail.Exception, match="took more than 1 s"), within(1):
        try:
            time.sleep(3)
        except Exception:  # noqa: BLE001 - as image readers do
            return


def test_damage_depends_only_on_the_seed():
    data = bytes(range(100))
    assert list(mutations(data, 1, 40)) == list(mutations(data, 1, 40))
    assert list(mutations(data, 1, 40)) != list(mutations(data, 2, 40))
