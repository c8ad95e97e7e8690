"""An auxiliary loss (Trinh et al. 2018) beside a truncated main loss, and beside one that is not truncated.

A sequence begins with a mark and three symbols of eight, is blank to its end, and there the three are asked for. The
main loss is that of the three answers, its gradient truncated after `--steps-back` steps: by itself it never reaches
the symbols. Prints for each seed the share of right answers (by chance .125) and the processor seconds of training.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carousel import Recurrent
from carousel.training import AuxiliaryLoss, generator, truncated

SYMBOLS, SHOWN, BLANK, MARK, ASKED, KINDS = 8, 3, 8, 9, 10, 11
CHECKED = 1000


def batch(size: int, length: int, draw: torch.Generator) -> Tensor:
    """Ids (T, B)."""
    ids = torch.full((length, size), BLANK)
    ids[0] = MARK
    ids[1 : 1 + SHOWN] = torch.randint(SYMBOLS, (SHOWN, size), generator=draw)
    ids[-SHOWN:] = ASKED
    return ids


def right(network: Recurrent, readout: nn.Module, length: int) -> float:
    ids = batch(CHECKED, length, generator("check"))
    with torch.no_grad():
        outputs, _ = network(F.one_hot(ids, KINDS).float())
        return float((readout(outputs[-SHOWN:]).argmax(-1) == ids[1 : 1 + SHOWN]).float().mean())


def train(how: str, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    torch.manual_seed(seed)
    hidden, length = options.hidden, options.length
    network, readout = Recurrent("lstm", KINDS, hidden, forget_bias=1.0), nn.Linear(hidden, SYMBOLS)
    decoder = Recurrent("lstm", KINDS, hidden)
    auxiliary = AuxiliaryLoss(
        decoder, nn.Linear(hidden, KINDS), segment=options.segment, reach=options.reach, criterion=F.cross_entropy
    )
    trained = nn.ModuleList([network, readout, auxiliary] if how == "auxiliary" else [network, readout])
    optimiser = torch.optim.Adam(trained.parameters(), lr=options.rate)
    began, back = time.process_time(), length if how == "full" else options.steps_back
    for step in range(options.steps):
        ids = batch(32, length, generator("train", seed, step))
        inputs = F.one_hot(ids, KINDS).float()
        outputs, _ = truncated(network, inputs, back)
        loss = F.cross_entropy(readout(outputs[-SHOWN:]).flatten(0, 1), ids[1 : 1 + SHOWN].flatten())
        if how == "auxiliary":
            loss = loss + auxiliary(network, inputs, ids, generator=generator("anchors", seed, step))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        if options.every and (step + 1) % options.every == 0:
            print(f"  {how} seed {seed} step {step + 1}: {right(network, readout, length):.3f}", flush=True)
    seconds = time.process_time() - began
    return right(network, readout, length), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whole = {"length": 24, "steps": 1500, "hidden": 48, "segment": 4, "reach": 10, "steps-back": 4, "every": 0}
    for name, default in whole.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--how", nargs="+", default=["truncated", "auxiliary", "full"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        for how in options.how:
            score, seconds = train(how, seed, options)
            print(f"{how}, seed {seed}: {score:.3f} right, {seconds:.1f} processor seconds", flush=True)


if __name__ == "__main__":
    main()
