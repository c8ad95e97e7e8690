"""A linear-chain conditional random field: what a tag says of the next one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class TagRules(NamedTuple):
    """Which tags may begin a sequence (K,), follow another (K, K) and end a sequence (K,)."""

    first: Tensor
    then: Tensor
    last: Tensor


class LinearChainCRF(nn.Module):
    """The probability of a whole sequence of tags, given a score e_t,k of each tag at each step.

        s(y)     = a_{y_1} + Σ_t e_{t,y_t} + Σ_{t>1} A_{y_{t−1},y_t} + z_{y_T}
        log p(y) = s(y) − log Z,   Z = Σ_y exp s(y)   over all K^T sequences

    Lafferty, McCallum and Pereira 2001, ICML, "Conditional random fields", over the outputs of a network as in Lample
    et al. 2016, arXiv:1603.01360, section 2.2. With a, A and z at zero it is a softmax at every step.

    Args:
        tags: K.
        learned: whether a, A and z, which begin at zero, are trained.

    >>> crf = LinearChainCRF(tags=3)
    >>> e, y, lengths = torch.zeros(4, 2, 3), torch.zeros(4, 2, dtype=torch.long), torch.tensor([4, 1])
    >>> crf(e, y, lengths).exp().tolist()               # one of 3^4 sequences, and one of 3
    [0.0123..., 0.333...]
    """

    def __init__(self, tags: int, *, learned: bool = True) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(tags), requires_grad=learned)  # a
        self.then = nn.Parameter(torch.zeros(tags, tags), requires_grad=learned)  # A: from row to column
        self.last = nn.Parameter(torch.zeros(tags), requires_grad=learned)  # z

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """log p (B,) of tags (T, B), of emissions (T, B, K) and lengths (B,); what is in the padding is no matter."""
        return self.score(emissions, tags, lengths) - self.log_partition(emissions, lengths)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """s (B,)."""
        T, B, _ = emissions.shape
        real = torch.arange(T, device=lengths.device)[:, None] < lengths
        tags = tags.where(real, 0)
        steps = emissions.gather(2, tags[..., None])[..., 0]
        steps = steps + torch.cat([self.first[tags[:1]], self.then[tags[:-1], tags[1:]]])
        ends = tags[lengths - 1, torch.arange(B, device=lengths.device)]
        return steps.where(real, 0.0).sum(0) + self.last[ends]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """log Z (B,), by the forward algorithm.

        α_1,k = a_k + e_1,k      α_t,k = e_t,k + log Σ_j exp(α_{t−1,j} + A_jk)      log Z = log Σ_k exp(α_T,k + z_k)
        """
        alpha = self.first + emissions[0]
        for t in range(1, len(emissions)):
            following = emissions[t] + torch.logsumexp(alpha[:, :, None] + self.then, dim=1)
            alpha = torch.where((t < lengths)[:, None], following, alpha)
        return torch.logsumexp(alpha + self.last, dim=1)

    def marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """p(y_t = k) (T, B, K), zero in the padding: ∂ log Z / ∂ e_t,k."""
        with torch.inference_mode(False), torch.enable_grad():
            e = emissions.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(self.log_partition(e, lengths.clone()).sum(), e)
        return found

    def decode(self, emissions: Tensor, lengths: Tensor, rules: TagRules | None = None) -> Tensor:
        """The likeliest sequence that the rules allow: tags (T, B), in the padding the last one again.

        δ_t,k = e_t,k + max_j (δ_{t−1,j} + A_jk),   then back along the j that were best.      Viterbi 1967
        """
        first, then, last = (
            weights if rules is None else weights.masked_fill(~rules[k], -torch.inf)
            for k, weights in enumerate((self.first, self.then, self.last))
        )
        delta, back = first + emissions[0], []
        itself = torch.arange(emissions.shape[2], device=emissions.device).expand_as(delta)
        for t in range(1, len(emissions)):
            best, came = (delta[:, :, None] + then).max(dim=1)
            there = (t < lengths)[:, None]
            delta = torch.where(there, best + emissions[t], delta)
            back.append(torch.where(there, came, itself))
        path = [(delta + last).argmax(dim=1)]
        for came in reversed(back):
            path.append(came.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1])
