"""The compiled loop where PyTorch looks through the call: `torch.compile` and `torch.func`, against the eager loop."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap
from torch.utils._pytree import tree_leaves

import carousel
from carousel.compiler import functional, known, operator
from carousel.compiler.extent import extent
from carousel.compiler.function import Lane
from carousel.compiler.function import unroll as plain_unroll
from carousel.compiler.operands import Given

CELLS = ["elman", "lstm", "gru", "gru-reset-after"]


class Scaled(carousel.Cell):
    """A cell with settings."""

    class State(NamedTuple):
        h: Tensor

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.map = nn.Linear(input_size + hidden_size, hidden_size)
        self.scale, self.keep, self.squash = 0.5, 0, torch.tanh

    def step(self, x: Tensor, state: State) -> State:
        new = self.scale * self.squash(self.map(torch.cat([x, state.h], 1)))
        return self.State(new + state.h if self.keep else new)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchDynamo's own imports
        yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()


def compile_whole(module: nn.Module) -> Any:
    return torch.compile(module, fullgraph=True, backend="aot_eager")


def train(call: Any, module: nn.Module, x: Tensor, **options: Any) -> list[Tensor]:
    """Results and gradients of everything."""
    x = x.clone().requires_grad_()
    outputs, state = call(x, **options)
    results = [outputs, *tree_leaves(state)]
    loss = sum((result.sin() * (k + 1)).sum() for k, result in enumerate(results))
    found = torch.autograd.grad(loss, [x, *module.parameters()])  # type: ignore[arg-type]
    return [*results, *found]


def assert_near(got: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    for a, b in zip(tree_leaves(got), tree_leaves(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def eager(module: carousel.Recurrent) -> carousel.Recurrent:
    other = carousel.Recurrent(list(module.cells), engine="eager", bidirectional=module.bidirectional)
    other.batch_first = module.batch_first
    return other


# torch.compile


@pytest.mark.parametrize("name", CELLS)
def test_compiled_whole_it_trains_alike(name: str) -> None:
    module = carousel.Recurrent(name, 5, 8, layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(4, 7, 5)
    compiled = compile_whole(module)
    assert_near(train(compiled, module, x), train(eager(module), module, x))
    with torch.no_grad():
        assert_near(compiled(x), eager(module)(x))


def test_the_graph_holds_one_operator_for_each_loop() -> None:
    found: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        found.extend(node for node in graph.graph.nodes if node.target is torch.ops.carousel.unroll)
        return graph

    module = carousel.Recurrent("lstm", 5, 8, layers=2)
    torch.compile(module, fullgraph=True, backend=backend)(torch.randn(7, 4, 5))
    assert len(found) == 2


def test_batches_of_other_sizes_need_no_new_graphs() -> None:
    module = carousel.Recurrent("gru", 5, 8, bidirectional=True)
    compiled = compile_whole(module)
    for steps in range(2, 12):
        x = torch.randn(steps, 3 + steps // 2, 5)
        assert_near(train(compiled, module, x), train(eager(module), module, x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3


def test_lengths_are_right_if_not_in_one_graph() -> None:
    module = carousel.Recurrent("lstm", 5, 8)
    compiled = torch.compile(module, backend="aot_eager")
    for lengths in ([3, 7, 1, 7], [7, 7, 7, 7], [2, 2, 2, 1]):
        given = torch.tensor(lengths)
        x = torch.randn(7, 4, 5)
        assert_near(train(compiled, module, x, lengths=given), train(eager(module), module, x, lengths=given))


@pytest.mark.parametrize("allow", [True, False])
def test_the_layers_of_torch_nn(allow: bool) -> None:
    import torch._dynamo

    layer = carousel.LSTM(5, 8, 2)
    theirs = nn.LSTM(5, 8, 2)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(7, 4, 5)
    # TorchDynamo refuses whatever is a torch.nn.LSTM unless it is told not to.
    with torch._dynamo.config.patch(allow_rnn=allow):
        compiled = torch.compile(layer, fullgraph=allow, backend="aot_eager")
        assert_near(train(compiled, layer, x), train(theirs, theirs, x))


def test_settings_that_change_are_seen() -> None:
    cell = Scaled(3, 4)
    module = carousel.Recurrent(cell)
    compiled, x = compile_whole(module), torch.randn(5, 2, 3)
    compiled(x)
    for name, value in (("scale", 0.25), ("keep", None), ("keep", (1,)), ("squash", torch.sigmoid), ("scale", 2.0)):
        setattr(cell, name, value)
        assert_near(compiled(x), eager(module)(x))


def test_cells_of_one_class_are_not_confused() -> None:
    modules = [carousel.Recurrent(Scaled(3, 4)) for _ in range(2)]
    modules[1].cells[0].scale = 3.0  # type: ignore[union-attr]
    x = torch.randn(5, 2, 3)
    for module in modules:
        assert_near(compile_whole(module)(x), eager(module)(x))


def test_what_cannot_be_compiled_runs_step_by_step() -> None:
    module = carousel.Recurrent("lstm", 3, 4).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    assert_near(torch.compile(module, backend="aot_eager")(x), module(x))


def test_trained_by_inductor() -> None:
    module = carousel.Recurrent("gru", 5, 8)
    x = torch.randn(7, 4, 5)
    assert_near(train(torch.compile(module, fullgraph=True), module, x), train(eager(module), module, x))


def test_export_holds_no_operator_of_ours() -> None:
    module = carousel.Recurrent("gru", 3, 4)
    x = torch.randn(5, 2, 3)
    exported = torch.export.export(module, (x,))
    assert not [node for node in exported.graph.nodes if "carousel" in str(node.target)]
    assert_near(exported.module()(x), module(x))


def test_traced_by_jit_it_is_not_a_constant() -> None:
    module = carousel.Recurrent("gru", 3, 4)
    module.requires_grad_(False)
    traced = torch.jit.trace(lambda x: module(x)[0], torch.randn(5, 2, 3))
    x = torch.randn(5, 2, 3)
    assert_near(traced(x), module(x)[0])


def arguments(name: str, sizes: tuple[int, ...], training: bool) -> tuple[Any, ...]:
    cell = carousel.Recurrent(name, 3, 4).cells[0]
    program = known(cell).program  # type: ignore[arg-type]
    operands = program.recurrence.operands(cell, torch.randn(sum(sizes), 3))
    groups = [[tensor.detach().requires_grad_(training) for tensor in group] for group in operands]
    state = [torch.randn_like(field).requires_grad_(training) for field in cell.initial_state(sizes[0])]  # type: ignore
    ragged = [] if sizes[0] == sizes[-1] else list(sizes)
    return *groups, state, len(sizes), ragged, operator.register(program), training


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 2, 2, 1)])
def test_the_operator_keeps_the_rules(name: str, sizes: tuple[int, ...], training: bool) -> None:
    torch.library.opcheck(torch.ops.carousel.unroll.default, arguments(name, sizes, training))


def test_the_backward_operator_keeps_the_rules() -> None:
    *groups, steps, sizes, key, _ = arguments("lstm", (3, 2, 2, 1), False)
    found = operator.unroll_operator(*groups, steps, sizes, key, True)
    fields = len(groups[3])
    saved, wanted = [*found[:fields], *found[2 * fields :]], [True] * sum(map(len, groups))
    grads = [torch.randn_like(found[0]), torch.randn_like(found[fields]), None]
    given = (*groups, saved, grads, steps, sizes, key, wanted)
    torch.library.opcheck(torch.ops.carousel.unroll_backward.default, given)


def test_an_unknown_loop_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"carousel::unroll: no loop of that name in this process \(got 'x'\)"):
        operator.unroll_operator([], [], [], [torch.zeros(1, 1)], 1, [], "x", False)


def test_importing_the_package_does_not_load_the_dynamo() -> None:
    program = "import sys, carousel.compiler.operator, carousel.nn; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# torch.func


@pytest.fixture
def compiled_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counting(*given: Any) -> Any:
        calls.append(1)
        return original(*given)

    original = functional.unroll
    monkeypatch.setattr(functional, "unroll", counting)
    return calls


def loss(module: nn.Module, lengths: Tensor | None = None) -> Callable[..., Tensor]:
    def of(parameters: Any, x: Tensor) -> Tensor:
        results = tree_leaves(functional_call(module, parameters, (x,), {"lengths": lengths}))
        return sum((result**2).sum() * (k + 1) for k, result in enumerate(results))  # type: ignore[return-value]

    return of


X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
XS = torch.randn(3, 5, 2, 3, generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([3, 5])


def twice(module: nn.Module, parameters: Any) -> Any:
    """PyTorch's own gradient of the gradient that torch.func takes."""
    x = X.clone().requires_grad_()
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    found = grad(loss(module, LENGTHS), argnums=(0, 1))(leaves, x)
    return torch.autograd.grad(sum(g.pow(2).sum() for g in tree_leaves(found)), [x, *leaves.values()])


def inner(module: nn.Module, parameters: Any) -> Any:
    return grad(lambda x: grad(loss(module), argnums=1)(parameters, x).pow(2).sum())(X)


def outputs(module: nn.Module, parameters: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: functional_call(module, parameters, (x,))[0]


# What, and how often the compiled loop runs in it.
TRANSFORMS: dict[str, tuple[Callable[[nn.Module, Any], Any], int]] = {
    "functional_call": (lambda m, p: loss(m, LENGTHS)(p, X), 0),
    "grad": (lambda m, p: grad(loss(m, LENGTHS), argnums=(0, 1))(p, X), 1),
    "grad of parameters": (lambda m, p: grad(loss(m))(p, X), 1),
    "grad_and_value": (lambda m, p: torch.func.grad_and_value(loss(m, LENGTHS))(p, X), 1),
    "plain gradient of grad": (twice, 1),
    "grad of grad": (inner, 0),
    "vmap": (lambda m, p: vmap(outputs(m, p))(XS), 0),
    "vmap of grad": (lambda m, p: vmap(grad(loss(m), argnums=1), in_dims=(None, 0))(p, XS), 0),
    "jacrev": (lambda m, p: jacrev(outputs(m, p))(X), 1),
    "jacrev of parameters": (lambda m, p: jacrev(lambda q: outputs(m, q)(X))(p), 1),
    "jvp": (lambda m, p: jvp(outputs(m, p), (X,), (X,)), 0),
    "hessian": (lambda m, p: hessian(lambda x: loss(m)(p, x))(X[:2]), 0),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transformations(name: str, transform: str, compiled_calls: list[int]) -> None:
    apply, runs = TRANSFORMS[transform]
    module = carousel.Recurrent(name, 3, 4)
    parameters = {key: value.detach() for key, value in eager(module).named_parameters()}
    wanted = apply(eager(module), parameters)
    assert_near(apply(module, parameters), wanted, 2e-4)
    assert len(compiled_calls) == runs


def test_drop_in_layers_by_functional_call(compiled_calls: list[int]) -> None:
    ours, theirs = carousel.GRU(3, 4, 2), nn.GRU(3, 4, 2)
    parameters = {name: value.detach() for name, value in theirs.named_parameters()}
    found = [grad(lambda p, m=m: outputs(m, p)(X).sin().sum())(parameters) for m in (ours, theirs)]
    assert_near(*found)
    assert len(compiled_calls) == 2


def test_many_gradients_at_once() -> None:
    module = carousel.Recurrent("lstm", 3, 4)
    found = []
    for one in (module, eager(module)):
        x = X.clone().requires_grad_()
        output = one(x)[0]
        directions = torch.eye(output.numel()).view(-1, *output.shape)
        found.append(torch.autograd.grad(output, x, directions, is_grads_batched=True))
    assert_near(*found)


def test_the_function_that_keeps_everything_is_the_quick_one() -> None:
    cell: Any = carousel.Recurrent("lstm", 3, 4).cells[0]
    program, rows = known(cell).program, extent((3, 2, 2, 1))
    operands, state = program.recurrence.operands(cell, torch.randn(8, 3)), cell.initial_state(3)
    [quick] = plain_unroll([Lane(program, Given.of(operands, state), rows, 1)])
    assert_near(functional.unroll(program, operands, state, rows), quick)
