"""A stand-in for NVIDIA's apex, which cannot be installed any more."""

import contextlib
import sys
import types

import torch
from torch import Tensor
from torch.nn import functional

PATCHED = (
    *((functional, name) for name in ("linear", "conv1d", "conv2d")),
    *((Tensor, name) for name in ("cumsum", "__matmul__")),
)


class StandInForApex:
    """Behaves like ``apex.amp`` O1: patched functions compute in half precision and cache cast weights until a step."""

    def __init__(self, monkeypatch):
        self.casting, self.cache, self.level = True, {}, None
        for owner, name in PATCHED:
            monkeypatch.setattr(owner, name, self._patched(getattr(owner, name)))
        monkeypatch.setitem(sys.modules, "apex", types.SimpleNamespace(amp=self))

    def _patched(self, function):
        def call(*arguments, **options):
            return function(*map(self._half, arguments) if self.casting else arguments, **options)

        return call

    def _half(self, value):
        if not isinstance(value, Tensor):
            return value
        return self.cache.setdefault(value, value.half()) if isinstance(value, torch.nn.Parameter) else value.half()

    def initialize(self, model, optimizer, *, opt_level, verbosity):
        self.level = opt_level

    @contextlib.contextmanager
    def scale_loss(self, loss, optimizer):
        yield loss * 8
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= 8
        self.cache.clear()

    @contextlib.contextmanager
    def disable_casts(self):
        before, self.casting = self.casting, False
        yield
        self.casting = before
