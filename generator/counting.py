"""Counts the operations of a model on the meta device, each kind of operation worked out once.

Torch's own counter takes seconds for a large model: on the meta device each operation finds its shapes anew, in
Python, and a model's blocks ask for the same ones again and again. Here what was found once is looked up.
What counts is torch's (`torch.utils.flop_counter`): products of matrices, convolutions and attention.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Made = Callable[[Sequence[Any]], Any]
"""What an operation returns, given its arguments."""

_KNOWN: dict[Hashable, tuple[int, Made]] = {}


class Operations(TorchDispatchMode):
    """`with Operations() as counter: model(x)`; then `counter.total` is what was computed, a multiplication and an
    addition as two. Tensors on other devices than meta are computed as ever, and counted too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        key = _hashed(func, args, named)
        known = None if key is None else _KNOWN.get(key)
        if known is not None:
            self.total += known[0]
            return known[1](args)
        shapes = [tuple(argument.shape) for argument in args if isinstance(argument, Tensor)]
        out = func(*args, **named)
        count = flop_registry.get(func._overloadpacket)
        operations = 0 if count is None else count(*args, **named, out_val=out)
        self.total += operations
        changed = shapes != [tuple(argument.shape) for argument in args if isinstance(argument, Tensor)]
        if key is not None and not changed:
            with contextlib.suppress(NotOnMetaError):
                _KNOWN[key] = operations, _again(out, args)
        return out


class NotOnMetaError(Exception):
    """It has numbers, which may decide what is made of it."""


def _hashed(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Hashable:
    """Tells operations apart by what they are given; None where numbers may matter, or there is no hash."""
    try:
        key = (func, _key(args), _key(named.items()))
        hash(key)
    except (NotOnMetaError, TypeError):
        return None
    return key


def _key(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise NotOnMetaError
        return (tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, int | float | bool):
        return (type(value), value)
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return tuple(_key(item) for item in value)


def _again(out: Any, args: Sequence[Any]) -> Made:
    """What makes the like of `out`: the argument that was changed in place, or a tensor of its shape."""
    if isinstance(out, Tensor):
        for number, argument in enumerate(args):
            if argument is out:
                return lambda given: given[number]
        if not out.is_meta:
            raise NotOnMetaError
        shape, stride, dtype = tuple(out.shape), out.stride(), out.dtype
        return lambda given: torch.empty_strided(shape, stride, dtype=dtype, device="meta")
    if isinstance(out, list | tuple):
        parts, kind = [_again(item, args) for item in out], type(out)
        return lambda given: kind(part(given) for part in parts)
    return lambda given: out
