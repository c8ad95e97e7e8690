"""PyTorch's own tests of its recurrent modules, on ours: its samples, references and gradient checks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import carousel
from carousel.errors import ConfigError

NAMES = ["RNN", "GRU", "LSTM"]
DTYPES = [torch.float32, torch.float64]
every_kind = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
every_mode = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@pytest.fixture(scope="module")
def theirs() -> Any:
    """PyTorch's module database by class name, and its helpers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends, "disable_global_flags", lambda: None)  # it would last for all other tests
        try:
            from torch.testing._internal import common_modules, common_utils
        except ImportError as error:
            pytest.skip(f"PyTorch's module tests cannot be loaded ({error}); pip install expecttest")
    infos = {info.module_cls.__name__: info for info in common_modules.module_db}
    return SimpleNamespace(infos=infos, utils=common_utils, errors=common_modules.ModuleErrorEnum)


def samples(
    theirs: Any, name: str, dtype: torch.dtype, training: bool = True, every: int = 1, **options: Any
) -> Iterator[Any]:
    """Our layer, made as theirs is, and what to call it with; of the options' products every so many."""
    info = theirs.infos[name]
    options = {"device": "cpu", "dtype": dtype, "requires_grad": False, "training": training} | options
    drawn = info.module_inputs_func(info, **options)
    assert len(drawn) >= 16
    for sample in drawn[::every]:
        args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
        layer = getattr(carousel, name)(*args, **kwargs).to(dtype).train(training)
        twin = info.module_cls(*args, **kwargs).to(dtype).train(training)
        twin.load_state_dict(layer.state_dict())
        yield SimpleNamespace(layer=layer, twin=twin, call=sample.forward_input, reference=sample.reference_fn)


def flat(found: Any) -> list[Tensor]:
    """The tensors of what a layer returns."""
    if isinstance(found, PackedSequence):
        return [found.data]
    return [found] if isinstance(found, Tensor) else [tensor for one in found for tensor in flat(one)]


@every_kind
@every_dtype
@every_mode
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_forward_is_the_reference(theirs: Any, name: str, dtype: torch.dtype, training: bool) -> None:
    for one in samples(theirs, name, dtype, training):
        outputs = one.layer(*one.call.args, **one.call.kwargs)
        torch.testing.assert_close(outputs, one.twin(*one.call.args, **one.call.kwargs), rtol=1e-5, atol=1e-5)
        reference = one.reference(one.layer, *one.call.args, **one.call.kwargs)
        torch.testing.assert_close(outputs, reference, rtol=1e-5, atol=1e-5)


@every_kind
@every_dtype
def test_factory_arguments_reach_every_parameter(theirs: Any, name: str, dtype: torch.dtype) -> None:
    for one in samples(theirs, name, dtype):
        options = {key: getattr(one.layer, key) for key in ("input_size", "hidden_size", "num_layers", "bidirectional")}
        layer = getattr(carousel, name)(**options, device="cpu", dtype=dtype)
        assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("cpu", dtype)}
        with torch.device("meta"):
            assert {p.device.type for p in getattr(carousel, name)(**options).parameters()} == {"meta"}
        assert repr(one.layer) == str(one.layer) == repr(one.twin)


@every_kind
def test_a_saved_layer_computes_the_same(theirs: Any, name: str) -> None:
    for one in samples(theirs, name, torch.float64):
        file = io.BytesIO()
        torch.save(one.layer, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        outputs, again = (layer(*one.call.args, **one.call.kwargs) for layer in (one.layer, loaded))
        torch.testing.assert_close(again, outputs, rtol=0, atol=0)


def strided(tensor: Tensor) -> Tensor:
    """The same values, every other one of a larger tensor."""
    return torch.stack([tensor.detach(), torch.zeros_like(tensor)], dim=-1)[..., 0].requires_grad_(tensor.requires_grad)


@every_kind
@every_dtype
def test_strides_change_nothing(theirs: Any, name: str, dtype: torch.dtype) -> None:
    for one in samples(theirs, name, dtype, every=3, requires_grad=True):

        def run(args: Any, weights: dict[str, Tensor]) -> list[Tensor]:
            found = flat(torch.func.functional_call(one.layer, weights, args))  # noqa: B023
            leaves = [*flat(args), *weights.values()]
            return [*found, *torch.autograd.grad(sum((f * f).sum() for f in found), leaves)]

        weights = dict(one.layer.named_parameters())
        args = tuple(strided(a) if isinstance(a, Tensor) else tuple(map(strided, a)) for a in one.call.args)
        assert not any(tensor.is_contiguous() for tensor in flat(args))
        got = run(args, {key: strided(weight) for key, weight in weights.items()})
        torch.testing.assert_close(got, run(one.call.args, weights), rtol=1e-5, atol=1e-5)


@every_kind
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_gradients_are_those_of_finite_differences(theirs: Any, name: str, order: int, packed: bool) -> None:
    check = {1: theirs.utils.gradcheck, 2: theirs.utils.gradgradcheck}[order]
    if packed and name == "LSTM":
        pytest.skip("PyTorch has no packed samples of its LSTM")
    every, options = {1: 1, 2: 5}[order], {"with_packed_sequence": True} if packed else {}
    count = 0
    for one in samples(theirs, name, torch.float64, every=every, requires_grad=True, **options):
        given, weights = one.call.args, dict(one.layer.named_parameters())
        if isinstance(given[0], PackedSequence) != packed:
            continue
        leaves = [tensor for tensor in flat(given) if tensor.requires_grad]
        assert leaves

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            left = iter(tensors)
            first, *rest = given  # noqa: B023
            if isinstance(first, PackedSequence):
                first = PackedSequence(next(left), *first[1:])
            else:
                first = next(left)
            state = [next(left) if isinstance(h, Tensor) else tuple(next(left) for _ in h) for h in rest]
            named = dict(zip(weights, left, strict=True))  # noqa: B023
            return tuple(flat(torch.func.functional_call(one.layer, named, (first, *state))))  # noqa: B023

        assert check(run, (*leaves, *weights.values()))
        count += 1
    assert count >= 16 // every


@every_kind
def test_training_is_asked_for(theirs: Any, name: str) -> None:
    assert theirs.infos[name].train_and_eval_differ
    for one in samples(theirs, name, torch.float32):
        del one.layer.training
        with pytest.raises(AttributeError, match="training"):
            one.layer(*one.call.args, **one.call.kwargs)


@every_kind
@every_dtype
def test_what_theirs_refuse_ours_refuse(theirs: Any, name: str, dtype: torch.dtype) -> None:
    """Most of it in words of our own, and as a ConfigError."""
    info = theirs.infos[name]
    found = info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
    for error in found:
        made, called = error.module_error_input.constructor_input, error.module_error_input.forward_input
        with pytest.raises((ConfigError, error.error_type)) as caught:
            layer = getattr(carousel, name)(*made.args, **made.kwargs)
            assert error.error_on == theirs.errors.FORWARD_ERROR
            layer(*called.args, **called.kwargs)
        if not isinstance(caught.value, ConfigError):
            assert caught.match(error.error_regex)
    assert len(found) >= 3


def test_they_notice_a_wrong_layer(theirs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = carousel.GRU.forward

    def wrong(self: nn.GRU, *args: Any) -> Any:
        output, h = run(self, *args)
        return output + 1e-3 * (output.dim() == 2), h.detach() + 0 * h

    monkeypatch.setattr(carousel.GRU, "forward", wrong)
    for check in (test_forward_is_the_reference, test_gradients_are_those_of_finite_differences):
        options = (torch.float64, True) if check is test_forward_is_the_reference else (1, False)
        with pytest.raises((AssertionError, RuntimeError), match=r"not close|Jacobian mismatch"):
            check(theirs, "GRU", *options)
