"""Several decoders that speak as one."""

from __future__ import annotations

import pytest
import torch

from carousel.decoding import beam_search, ensemble

from .table import FORBIDDEN, START, STOP, Table


@pytest.mark.parametrize("members", [1, 2, 3])
def test_equal_members_are_one(members: int) -> None:
    table = Table.random(0)
    options = {"batch": 2, "start": START, "stop": STOP, "forbidden": FORBIDDEN, "n_best": 5, "max_length": 4}
    alone = beam_search(table.step, table.start(0, 1), **options)
    together = beam_search(ensemble([table.step] * members), (table.start(0, 1),) * members, **options)
    for one, many in zip(alone, together, strict=True):
        assert [sentence.words for sentence in many] == [sentence.words for sentence in one]
        assert [sentence.logprob for sentence in many] == pytest.approx([sentence.logprob for sentence in one])


def test_probabilities_are_averaged_and_each_member_keeps_its_state() -> None:
    first, second = Table.random(0), Table.random(1)
    state = (first.start(0, 1), second.start(1, 0))
    step = ensemble([first.step, second.step])
    for word in (START, 4, 5):
        words = torch.tensor([word, word])
        logits, after = step(words, state)
        apart = [first.step(words, state[0])[0], second.step(words, state[1])[0]]
        mean = (apart[0].softmax(1) + apart[1].softmax(1)) / 2
        torch.testing.assert_close(logits.softmax(1), mean)
        torch.testing.assert_close(logits.exp(), mean)  # log-probabilities, as they are
        state = after
    assert [part.before[0].tolist() for part in state] == [[5, 5], [5, 5]]
