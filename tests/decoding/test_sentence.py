"""What decoding returns, and the states it reorders."""

from __future__ import annotations

import pytest
import torch

from carousel.decoding import select_rows
from carousel.decoding.sentence import sentences

from .table import State


def test_rows_are_cut_at_the_first_stop() -> None:
    words = torch.tensor([[4, 5, 2, 2], [2, 2, 2, 2], [4, 5, 6, 4]])
    logprobs = torch.tensor([[-1.0, -2.0, -4.0, -8.0]] * 3)
    assert sentences(words, logprobs, stop=2) == [
        ((4, 5), (-1.0, -2.0), -7.0, True),
        ((), (), -1.0, True),
        ((4, 5, 6, 4), (-1.0, -2.0, -4.0, -8.0), -15.0, False),
    ]


def test_every_tensor_of_a_state_is_reordered_and_its_types_stay() -> None:
    state = State(torch.tensor([10, 20, 30]), (torch.tensor([1, 2, 3]), torch.zeros(3)))
    picked = select_rows((state, ()), torch.tensor([2, 0, 0]))
    assert isinstance(picked[0], State) and picked[1] == ()
    assert (picked[0].photo.tolist(), picked[0].before[0].tolist()) == ([30, 10, 10], [3, 1, 1])


def test_a_state_of_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a decoder's state is made of tuples and tensors \(got list\)"):
        select_rows([torch.zeros(2)], torch.tensor([0]))
