"""Put a captioner's weights into the package, with what its users must know in the file.

    python benchmarks/ship_weights.py nic runs/frozen-0/model.safetensors runs/tuned/model.safetensors
    python benchmarks/ship_weights.py attend runs/critical/model.safetensors

Of a frozen and a tuned one, which began with the frozen one, the mean: it keeps what both know (Wortsman et al. 2021,
arXiv:2109.01903). Of one that attends, large matrices in eight bits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import Tensor

from carousel.captioning import Captioner, PhotoEncoder
from carousel.captioning.schools import SCHOOLS

FACTS = {
    "data": "Flickr8k's 6,000 training photos and their 30,000 captions (Hodosh, Young and Hockenmaier 2013, JAIR 47)",
    "terms": "The weights: Apache-2.0. Flickr8k: for research and education; its photos belong to their Flickr authors",
}
NAMES = {"nic": "Show and Tell on Flickr8k", "attend": "Adaptive attention on Flickr8k"}


def mean(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of two states with the same names."""
    return {name: (first[name] + second[name]) / 2 for name in second}


def averaged(frozen: Captioner, tuned: Captioner) -> Captioner:
    """The tuned one with the mean of both's weights."""
    decoder = tuned.members[0]
    decoder.load_state_dict(mean(frozen.members[0].state_dict(), decoder.state_dict()))
    begun = PhotoEncoder(tuned.config.finetune_from).trained_state()
    tuned.encoder.load_trained_state(mean(begun, tuned.encoder.trained_state()))
    return tuned


if __name__ == "__main__":
    school, captioners = sys.argv[1], [Captioner.load(path) for path in sys.argv[2:]]
    captioner = averaged(*captioners) if len(captioners) > 1 else captioners[0]
    captioner.facts.pop("validation", None)
    path = SCHOOLS[school]
    facts = {**FACTS, "name": NAMES[school], "card": f"{path.stem}.md beside this file"}
    captioner.save(path, facts, eight_bits=school == "attend")
    print(path, f"{path.stat().st_size / 1e6:.1f} MB")
