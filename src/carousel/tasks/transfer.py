"""A classifier that begins as a language model: Howard and Ruder 2018, arXiv:1801.06146v5, in a simple form.

Tokens, their vectors and the recurrence that reads forward are the language model's. Lower layers learn slowly, each at
the rate of the one above over 2.6 ("discriminative fine-tuning"), and begin to learn later, a layer an epoch from the
top ("gradual unfreezing"). What the language model does not have, a recurrence that reads backward and the readout, is
at the top. There is no tuning of the language model on the labelled texts in between but by `carousel train --from`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Parameter

from carousel.tasks.language import LanguageModel
from carousel.tasks.text_classifier import ClassifyConfig, TextClassifier

SHAPE = ("cell", "layers", "hidden_size", "embedding_size", "tokens", "lowercase")


def shaped_as(config: ClassifyConfig, known: LanguageModel) -> ClassifyConfig:
    """The settings with the language model's tokens and sizes; of several layers all read forward alone."""
    shape = {name: getattr(known.config, name) for name in SHAPE}
    return config.model_copy(update={**shape, "bidirectional": config.bidirectional and shape["layers"] == 1})


def begin_as(network: TextClassifier, known: LanguageModel) -> None:
    """Copy what the language model has."""
    forward = slice(None, None, 2 if network.recurrent.bidirectional else 1)
    with torch.no_grad():
        network.embedding.weight.copy_(known.network.embedding.weight)
    for ours, theirs in zip(network.recurrent.cells[forward], known.network.recurrent.cells, strict=True):
        ours.load_state_dict(theirs.state_dict())


def from_above(network: TextClassifier) -> list[list[Parameter]]:
    """The parameters by layer, the topmost first."""
    forward = slice(None, None, 2 if network.recurrent.bidirectional else 1)
    below = [list(cell.parameters()) for cell in network.recurrent.cells[forward]][::-1]
    below.append(list(network.embedding.parameters()))
    taken = {id(parameter) for layer in below for parameter in layer}
    return [[parameter for parameter in network.parameters() if id(parameter) not in taken], *below]


def thaw(layers: Sequence[Sequence[Parameter]], epoch: int) -> None:
    """Let the topmost layer learn, and of the others one more in each epoch."""
    for depth, layer in enumerate(layers):
        for parameter in layer:
            parameter.requires_grad_(depth <= epoch)
