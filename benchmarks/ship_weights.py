"""Put the mean of a frozen and a tuned captioner's weights into the package, with what its users must know in the file.

    python benchmarks/ship_weights.py runs/frozen-0/model.safetensors runs/tuned/model.safetensors

The tuned one began with the frozen one. The mean keeps what both know: Wortsman et al. 2021, arXiv:2109.01903.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import Tensor

from carousel.captioning import SHIPPED, Captioner, PhotoEncoder

FACTS = {
    "name": "Show and Tell on Flickr8k",
    "data": "Flickr8k's 6,000 training photos and their 30,000 captions (Hodosh, Young and Hockenmaier 2013, JAIR 47)",
    "terms": "The weights: Apache-2.0. Flickr8k: for research and education; its photos belong to their Flickr authors",
    "card": "flickr8k.md beside this file",
}


def mean(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of two states with the same names."""
    return {name: (first[name] + second[name]) / 2 for name in second}


if __name__ == "__main__":
    frozen, tuned = (Captioner.load(path) for path in sys.argv[1:])
    decoder = tuned.members[0]
    decoder.load_state_dict(mean(frozen.members[0].state_dict(), decoder.state_dict()))
    begun = PhotoEncoder(tuned.config.finetune_from).trained_state()
    tuned.encoder.load_trained_state(mean(begun, tuned.encoder.trained_state()))
    tuned.facts.pop("validation", None)
    tuned.save(SHIPPED, FACTS)
    print(SHIPPED, f"{SHIPPED.stat().st_size / 1e6:.1f} MB")
