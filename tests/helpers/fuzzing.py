"""Damaged copies of valid files, the same ones for the same seed, and what reading them comes to."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.helpers.limits import within
from utils.run.errors import UserError

SECONDS = 5  # that a case may take; a hundred times what any needs

Random = np.random.Generator


def mutations(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """``count`` damaged copies of ``data``: cut, with bytes flipped, zeroed, filled, moved, doubled, lost or added."""
    for number in range(count):
        random = np.random.default_rng((seed, number))
        damage = DAMAGES[number % len(DAMAGES)]
        yield bytes(damage(bytearray(data), random))


def _cut(data: bytearray, random: Random) -> bytearray:
    return data[: random.integers(len(data))]


def _flip_bits(data: bytearray, random: Random) -> bytearray:
    for position in random.integers(len(data), size=random.integers(1, 9)):
        data[position] ^= 1 << random.integers(8)
    return data


def _flip_head(data: bytearray, random: Random) -> bytearray:
    """Where formats keep sizes and counts."""
    for position in random.integers(min(len(data), 256), size=random.integers(1, 5)):
        data[position] = random.integers(256)
    return data


def _zero(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    data[start:end] = bytes(end - start)
    return data


def _fill(data: bytearray, random: Random) -> bytearray:
    """With the largest values, as sizes often are attacked."""
    start = random.integers(len(data))
    end = min(start + random.integers(1, 9), len(data))
    data[start:end] = b"\xff" * (end - start)
    return data


def _splice(data: bytearray, random: Random) -> bytearray:
    """One range over another place."""
    start, end = _range(data, random)
    target = random.integers(len(data))
    data[target : target + end - start] = data[start:end]
    return data


def _double(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    return data[:end] + data[start:]


def _lose(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _add_noise(data: bytearray, random: Random) -> bytearray:
    position = random.integers(len(data) + 1)
    return data[:position] + random.bytes(random.integers(1, 65)) + data[position:]


DAMAGES: tuple[Callable[[bytearray, Random], bytearray], ...] = (
    _cut, _flip_bits, _flip_head, _zero, _fill, _splice, _double, _lose, _add_noise,
)  # fmt: skip


def _range(data: bytearray, random: Random) -> tuple[int, int]:
    start, end = sorted(random.integers(len(data) + 1, size=2).tolist())
    return start, end


def outcome(call: Callable[[], object]) -> str:
    """``read`` or ``refused``; every other exception, more than one line, or a hang is a failure."""
    with within(SECONDS):
        try:
            call()
        except UserError as error:
            assert "\n" not in str(error)
            return "refused"
    return "read"


def why(call: Callable, *values, **options) -> str:
    """The one line with which the call refuses."""
    with pytest.raises(UserError) as error:
        call(*values, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def report(tally, form: str, found: Counter) -> None:
    tally(sum(found.values()), f"damaged {form} files: {found['read']} read, {found['refused']} refused")
