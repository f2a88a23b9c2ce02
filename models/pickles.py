"""A look through a pickle before it is loaded, for what would crash or hang whoever loads it."""

import pickletools
from typing import BinaryIO

MOST_NESTED = 1000  # tuples within a tuple, counted as often as they are used; a state dict has five
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # how many items they take
PUT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
GET = ("GET", "BINGET", "LONG_BINGET")


def require_shallow(pickled: BinaryIO) -> None:
    """Raise ``ValueError`` unless the next pickle in ``pickled`` is whole and nests few tuples; loads nothing.

    As a key, a tuple is hashed, and so is all that it holds: deep ones exhaust the C stack, and tuples that hold one
    tuple twice, that again one twice, and so on, are never done. Runs the pickle's operations on sizes alone.
    """
    stack: list[int] = []  # tuples in each object; other objects count as one, because they are not hashed by content
    marks: list[int] = []
    memo: dict[int, int] = {}

    def taken(count: int) -> list[int]:
        if count > len(stack):
            raise ValueError("its pickle takes more than there is")
        start = len(stack) - count
        items = stack[start:]
        del stack[start:]
        return items

    for operation, argument, _ in pickletools.genops(pickled):
        name, before = operation.name, operation.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE" or name in TUPLES:
            size = 1 + sum(taken(len(stack) - marks.pop() if name == "TUPLE" else TUPLES[name]))
            if size > MOST_NESTED:
                raise ValueError("its pickle nests too many tuples")
            stack.append(size)
        elif name in PUT:
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in GET:
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            if pickletools.markobject in before:
                taken(len(stack) - marks.pop())
                taken(before.index(pickletools.markobject))
            else:
                taken(len(before))
            stack += [1] * len(operation.stack_after)
