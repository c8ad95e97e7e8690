"""A task whose state flows from batch to batch: sequences of any lengths, shuffled, side by side, with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel.nn import Recurrent
from carousel.training import BPTT, Loss, Piece, RunFolder, Streams, epoch_order, write_model_file

WORDS, K1, BATCH = 6, 4, 3
LENGTHS = [9, 5, 14, 3, 11, 7, 8, 2]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 4)
        self.recurrent = Recurrent("lstm", 4, 8, layers=2, dropout=0.3, input_dropout=0.1, zoneout=0.1)
        self.readout = nn.Linear(8, WORDS)

    def initial_state(self, batch: int) -> Any:
        return self.recurrent.initial_state(batch)

    def forward(self, piece: Piece, state: Any) -> tuple[Tensor, Any]:
        outputs, state = self.recurrent(self.embedding(piece.inputs), state, piece.lengths)
        losses = F.cross_entropy(self.readout(outputs).transpose(1, 2), piece.targets, reduction="none")
        return (losses * piece.real).sum(), state


class Babble:
    """Learn to continue sequences of words; `poison` spoils the loss of step (1, 2)."""

    def __init__(self, run: RunFolder, seed: int = 0, k2: int = 2 * K1, poison: bool = False) -> None:
        self.run, self.seed, self.poison = run, seed, poison
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: Model = Model()
            self.texts = [torch.randint(WORDS, (length + 1,)).sort().values for length in LENGTHS]
        self.bptt = BPTT(self.model, self.model, k1=K1, k2=k2)
        self.steps = min(len(self.pieces(epoch)) for epoch in range(20))

    def pieces(self, epoch: int) -> Streams:
        order = epoch_order(len(LENGTHS), self.seed, epoch)
        return Streams([text[:-1] for text in self.texts], [text[1:] for text in self.texts], BATCH, K1, order)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": 0.02}]

    def batch_name(self, epoch: int, step: int) -> str:
        return f"piece {step} of {epoch_order(len(LENGTHS), self.seed, epoch)}"

    def loss(self, epoch: int, step: int) -> Loss:
        if step == 0:
            self.bptt.reset()
        piece = self.pieces(epoch)[step]
        words = int(piece.real.sum())
        total = self.bptt(piece)
        if self.poison and (epoch, step) == (1, 2):
            total = total * float("nan")
        return Loss(total / words, total.item(), words)

    def carried(self) -> dict[str, Tensor]:
        return self.bptt.state_dict()

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        self.bptt.load_state_dict(tensors)

    def validate(self) -> dict[str, float]:
        losses = [self.model(Piece(t[:-1, None], t[1:, None]), None)[0].item() for t in self.texts]
        return {"objective": -sum(losses)}

    def save(self, scores: Mapping[str, float]) -> None:
        write_model_file(self.run.model, self.model.state_dict(), {"task": "toy"})
