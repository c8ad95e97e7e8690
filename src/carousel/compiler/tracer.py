"""A cell's `step` as torch.fx sees it: nodes with the line of code that each comes from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import chain
from types import BuiltinFunctionType
from typing import Any

import torch
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from carousel.cells import Cell, Readings


class Unsupported(Exception):
    """The compiler does not know an operation of the step; the message says which, and where."""


class StepTracer(fx.Tracer):
    """Traces `step`, with states that unpack; modules of which `leaf` is true stay single nodes."""

    traced_func_name = "step"
    proxy_buffer_attributes = True

    def __init__(self, cell: Cell, leaf: Callable[[torch.nn.Module], bool]) -> None:
        super().__init__()
        self.fields, self.leaf = cell.State._fields, leaf

    def create_node(self, *args: Any, **options: Any) -> fx.Node:
        node = super().create_node(*args, **options)
        node.meta["place"] = _line_traced()
        return node

    def trace(self, root: Any, concrete_args: Any = None) -> fx.Graph:
        before = torch.get_rng_state()
        with _Recorded(self):
            graph = super().trace(root, concrete_args)
        if not torch.equal(torch.get_rng_state(), before):
            torch.set_rng_state(before)
            raise Unsupported(
                "random numbers that are drawn in the step, new ones at each"
            )  # now constants of the graph
        return graph

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Readings) or self.leaf(m)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Any tensor of a module is read when the step runs: what `functional_call` puts there is no parameter."""
        if isinstance(attr_val, Tensor):
            for name, tensor in chain(self.root.named_parameters(), self.root.named_buffers()):
                if tensor is attr_val:
                    if name not in parameter_proxy_cache:
                        parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
                    return parameter_proxy_cache[name]
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        _, state = self.graph.find_nodes(op="placeholder")
        return iter([getattr(obj, field) for field in self.fields]) if obj.node is state else super().iter(obj)


class _Recorded(TorchFunctionMode):
    """Functions of torch become nodes here; fx would ask torch first whether each is a method, which takes it 10 ms."""

    def __init__(self, tracer: StepTracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, BuiltinFunctionType) or not _of_proxies(args, kwargs):
            return func(*args, **kwargs)
        name = self.tracer.graph._target_to_str(func.__name__)
        return self.tracer.create_proxy("call_function", func, args, kwargs, name=name)


def _of_proxies(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, fx.Proxy) for value in tree_leaves((args, kwargs)))


def _line_traced() -> str:
    """The line of the step, or of what it calls outside of torch, that is being traced."""
    frame: Any = sys._getframe(2)
    found = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if not (f"{os.sep}torch{os.sep}" in name or name == __file__ or name.startswith("<")):
            place = f" at {name}:{frame.f_lineno}"
            if frame.f_code.co_name == "step":
                return place
            found = found or place
        frame = frame.f_back
    return found
