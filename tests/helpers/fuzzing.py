"""Damaged copies of valid files, repeatable by seed, and helpers that check how they are read."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.helpers.limits import within
from utils.run.errors import UserError

SECONDS = 5  # time limit of a case, a hundred times what the slowest needs

Random = np.random.Generator


def mutations(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` damaged copies of ``data``, each with one of the kinds of damage below."""
    for number in range(count):
        random = np.random.default_rng((seed, number))
        damage = DAMAGES[number % len(DAMAGES)]
        yield bytes(damage(bytearray(data), random))


def _truncate(data: bytearray, random: Random) -> bytearray:
    return data[: random.integers(len(data))]


def _flip_bits(data: bytearray, random: Random) -> bytearray:
    for position in random.integers(len(data), size=random.integers(1, 9)):
        data[position] ^= 1 << random.integers(8)
    return data


def _change_header(data: bytearray, random: Random) -> bytearray:
    """Change bytes of the header, where formats store sizes and counts."""
    for position in random.integers(min(len(data), 256), size=random.integers(1, 5)):
        data[position] = random.integers(256)
    return data


def _zero(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    data[start:end] = bytes(end - start)
    return data


def _fill(data: bytearray, random: Random) -> bytearray:
    """Set bytes to 255, the largest value of a size."""
    start = random.integers(len(data))
    end = min(start + random.integers(1, 9), len(data))
    data[start:end] = b"\xff" * (end - start)
    return data


def _overwrite(data: bytearray, random: Random) -> bytearray:
    """Copy one range over another."""
    start, end = _range(data, random)
    target = random.integers(len(data))
    data[target : target + end - start] = data[start:end]
    return data


def _repeat(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    return data[:end] + data[start:]


def _remove(data: bytearray, random: Random) -> bytearray:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _insert(data: bytearray, random: Random) -> bytearray:
    position = random.integers(len(data) + 1)
    return data[:position] + random.bytes(random.integers(1, 65)) + data[position:]


DAMAGES: tuple[Callable[[bytearray, Random], bytearray], ...] = (
    _truncate, _flip_bits, _change_header, _zero, _fill, _overwrite, _repeat, _remove, _insert,
)  # fmt: skip


def _range(data: bytearray, random: Random) -> tuple[int, int]:
    start, end = sorted(random.integers(len(data) + 1, size=2).tolist())
    return start, end


def outcome(call: Callable[[], object]) -> str:
    """Return ``read`` or ``refused`` (UserError in one line); another exception or a hang fails the test."""
    with within(SECONDS):
        try:
            call()
        except UserError as error:
            assert "\n" not in str(error)
            return "refused"
    return "read"


def why(call: Callable, *values, **options) -> str:
    """The message of the UserError that the call must raise; it must be one line."""
    with pytest.raises(UserError) as error:
        call(*values, **options)
    message = str(error.value)
    assert "\n" not in message
    return message


def report(tally, form: str, found: Counter) -> None:
    """Add the number of damaged files to the table at the end of the test run."""
    tally(sum(found.values()), f"damaged {form} files: {found['read']} read, {found['refused']} refused")
