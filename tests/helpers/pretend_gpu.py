"""A simulated GPU: its tensors are stored on the CPU, but an operation that mixes them with CPU tensors fails.

So code for a GPU can be tested without one. Operations that would make the CPU wait for a GPU are counted.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from losses.soft_rank import sort_and_pool

DEVICE = torch.device("lazy:0")  # a device type that torch defines but does not use here
CPU = torch.device("cpu")
aten = torch.ops.aten
CROSSING = (aten._to_copy.default, aten.copy_.default)  # operations that may mix devices
# operations for which the CPU waits: it needs their result, or its shape
WAITING = (
    *(aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.allclose),
    *(aten.nonzero, aten.masked_select, aten.bincount, aten._unique, aten._unique2, aten.unique_dim),
)
OPERATORS = {torch.ops.mcja.sort_and_pool.default: sort_and_pool}
INDEXING = (aten.index, aten.index_put, aten.index_put_)


class Elsewhere(Tensor):
    """A tensor that reports ``DEVICE`` as its device."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        options = {"strides": inner.stride(), "dtype": inner.dtype, "device": DEVICE}
        return Tensor._make_wrapper_subclass(cls, inner.shape, **options)

    def __init__(self, inner: Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise AssertionError(f"{function} outside of PretendGPU")


class PretendGPU(TorchDispatchMode):
    """Inside this context, operations on ``DEVICE`` work.

    Attributes:
        waits: operation -> how often the CPU would have waited for its result.
        calls: operation -> how often it was called with a tensor on ``DEVICE``.
    """

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        if function in OPERATORS:  # look at the operations inside
            with self:
                return OPERATORS[function](*arguments, **options or {})
        options = options or {}
        given = [value for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)]
        there = any(isinstance(value, Elsewhere) for value in given)
        here = any(not isinstance(value, Elsewhere) and value.ndim for value in given)  # scalars may be on the CPU
        if there and here and function not in CROSSING:
            raise RuntimeError(f"{function} was given tensors of both devices")
        target = options.get("device")
        if self._waits(function, given, arguments, options):
            self.waits[str(function.overloadpacket)] += 1
        self.calls[str(function.overloadpacket)] += there
        result = function(*tree_map(_inner, arguments), **tree_map(_inner, options))
        if function._schema.is_mutable:
            return arguments[0]
        goes_there = there if target is None else target == DEVICE
        return tree_map(_outer, result) if goes_there else result

    @staticmethod
    def _waits(function, given: list[Tensor], arguments: tuple, options: dict) -> bool:
        operation = function.overloadpacket
        if operation is aten._to_copy:
            source, non_blocking = given[0], options.get("non_blocking")
            to_there = options.get("device", source.device) == DEVICE
            return _waits_to_copy(source, to_there=to_there, non_blocking=non_blocking)
        if operation is aten.copy_:
            target, source, *non_blocking = arguments
            return _waits_to_copy(source, to_there=isinstance(target, Elsewhere), non_blocking=any(non_blocking))
        if not any(isinstance(value, Elsewhere) for value in given):
            return False
        if operation in INDEXING:  # with a boolean mask, the shape depends on its values
            return any(value.dtype == torch.bool for value in tree_leaves(arguments[1]) if isinstance(value, Tensor))
        if operation is aten.repeat_interleave:
            return options.get("output_size") is None
        return operation in WAITING


def _waits_to_copy(source: Tensor, *, to_there: bool, non_blocking: bool) -> bool:
    """Copies to the CPU always wait; copies to ``DEVICE`` wait unless non_blocking is set."""
    from_there = isinstance(source, Elsewhere)
    return from_there != to_there and (from_there or not non_blocking)


def _inner(value: object) -> object:
    return value.inner if isinstance(value, Elsewhere) else CPU if _is_device(value) else value


def _is_device(value: object) -> bool:
    return isinstance(value, torch.device) and value == DEVICE


def _outer(value: object) -> object:
    return Elsewhere(value) if isinstance(value, Tensor) else value
