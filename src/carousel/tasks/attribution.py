"""Which elements of a sequence speak for what a network says: integrated gradients, and occlusion."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Output = Callable[[Tensor, Tensor], Tensor]  # vectors (T, B, E) and lengths (B,) -> (B,)


def integrated_gradients(output: Output, vectors: Tensor, steps: int = 32) -> Tensor:
    """How much each element's vector adds to the output, against vectors of zeros: (T,) from (T, E).

        IG_t = Σ_e x_te · ∫₀¹ ∂F(α x)/∂x_te dα      Σ_t IG_t = F(x) − F(0), but for the rule's error

    Sundararajan, Taly and Yan 2017, arXiv:1703.01365v2, eq. 1, by the midpoint rule with `steps` points at once.

    >>> linear = torch.tensor([2.0, -1.0])
    >>> integrated_gradients(lambda x, lengths: (x @ linear).sum(0), torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [2.0, -3.0]
    """
    shares = (torch.arange(steps) + 0.5) / steps
    scaled = (vectors.detach()[:, None] * shares[:, None]).requires_grad_()
    with torch.enable_grad():
        total = output(scaled, torch.full((steps,), len(vectors))).sum()
        (gradient,) = torch.autograd.grad(total, scaled)
    return (gradient.mean(1) * vectors).sum(-1).detach()


def occlusion(output: Output, vectors: Tensor, batch: int = 64) -> Tensor:
    """How much the output falls when an element is replaced by a vector of zeros: (T,) from (T, E).

        O_t = F(x) − F(x with x_t = 0)

    Zeiler and Fergus 2014, arXiv:1311.2901v3, section 4.2, for sequences.
    """
    T = len(vectors)
    falls = []
    with torch.inference_mode():
        whole = output(vectors[:, None], torch.tensor([T]))
        for start in range(0, T, batch):
            places = torch.arange(start, min(T, start + batch))
            some = vectors[:, None].repeat(1, len(places), 1)
            some[places, torch.arange(len(places))] = 0
            falls.append(whole - output(some, torch.full((len(places),), T)))
    return torch.cat(falls).clone()
