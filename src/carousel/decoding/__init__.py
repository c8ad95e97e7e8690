"""From a decoder's step to sentences: greedy, beam search with N-best lists, sampling, constraints."""

from .beam import beam_search, greedy_search
from .constraints import forbid_repeats, forbid_words
from .ensemble import ensemble
from .generation import generate
from .neural_cache import NeuralCache
from .sampling import sample, truncate_logits
from .scheduled import sampled_inputs
from .sentence import Sentence, Step, select_rows

__all__ = [
    "NeuralCache",
    "Sentence",
    "Step",
    "beam_search",
    "ensemble",
    "forbid_repeats",
    "forbid_words",
    "generate",
    "greedy_search",
    "sample",
    "sampled_inputs",
    "select_rows",
    "truncate_logits",
]
