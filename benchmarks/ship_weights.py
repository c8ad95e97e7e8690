"""Put a trained captioner into the package, with what its users must know in the file itself.

python benchmarks/ship_weights.py runs/tuned/model.safetensors
"""

from __future__ import annotations

import sys

from carousel.captioning import SHIPPED, Captioner

FACTS = {
    "name": "Show and Tell on Flickr8k",
    "data": "Flickr8k's 6,000 training photos and their 30,000 captions (Hodosh, Young and Hockenmaier 2013, JAIR 47)",
    "terms": "The weights: Apache-2.0. Flickr8k: for research and education; its photos belong to their Flickr authors",
    "card": "flickr8k.md beside this file",
}

if __name__ == "__main__":
    Captioner.load(sys.argv[1]).save(SHIPPED, FACTS)
    print(SHIPPED, f"{SHIPPED.stat().st_size / 1e6:.1f} MB")
