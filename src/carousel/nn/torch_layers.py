"""`LSTM`, `GRU` and `RNN`: the layers of `torch.nn`, run by Carousel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carousel.compiler import Engine
from carousel.nn.drop_in import DropIn


class LSTM(DropIn, nn.LSTM):
    """`torch.nn.LSTM` with `lengths`: the same arguments, parameters, initial weights, calls and numbers.

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)                  R (o_t ⊙ tanh(c_t)) with `proj_size`

    A `torch.nn.LSTM` in every other respect: state dicts and pickles, `isinstance`, `flatten_parameters`.

    Args:
        engine: what runs the time loop: "eager" is PyTorch's operations, "compiled" one kernel; "auto" chooses.
        others: as `torch.nn.LSTM` has them.

    Raises:
        ConfigError: an option is not as above; the message says which.

    >>> layer = LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
    >>> output, (h_n, c_n) = layer(torch.randn(2, 7, 3), lengths=torch.tensor([5, 7]))
    >>> output.shape, h_n.shape
    (torch.Size([2, 7, 8]), torch.Size([4, 2, 4]))
    >>> layer.load_state_dict(nn.LSTM(3, 4, 2, bidirectional=True).state_dict())
    <All keys matched successfully>
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            engine,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )

    def forward(
        self, input: Any, hx: tuple[Tensor, Tensor] | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """Outputs and the final `(h_n, c_n)`; D is 2 if bidirectional, else 1, and P is H without `proj_size`.

        Args:
            input: (T, B, I), or (B, T, I) with `batch_first`; (T, I) of one sequence; or a `PackedSequence`. The output
                has its form, with D·P columns.
            hx: `(h_0, c_0)`, (D·L, B, P) and (D·L, B, H), without B for one sequence; zeros by default.
            lengths: (B,) integers from 1 to T, in any order; what is past them is not read, and is zero in the output.

        Raises:
            ConfigError: a shape, type or length is not as above.
        """
        output, (h, c) = self._run(input, hx, lengths)
        return output, (h, c)


class GRU(DropIn, nn.GRU):
    """`torch.nn.GRU` with `lengths`: the same arguments, parameters, initial weights, calls and numbers.

        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)
        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)
        a_t = tanh(W_a x_t + b_a + r_t ⊙ (U_a h_{t-1} + c_a))
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ a_t

    A `torch.nn.GRU` in every other respect, see `LSTM`.

    >>> output, h_n = GRU(3, 4)(torch.randn(7, 2, 3))
    >>> output.shape, h_n.shape
    (torch.Size([7, 2, 4]), torch.Size([1, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            engine,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Any, hx: Tensor | None = None, *, lengths: Tensor | None = None) -> tuple[Any, Tensor]:
        """Outputs and the final `h_n`, (D·L, B, H); the arguments and errors are those of `LSTM.forward`."""
        output, [h] = self._run(input, hx, lengths)
        return output, h


class RNN(DropIn, nn.RNN):
    """`torch.nn.RNN` with `lengths`: the same arguments, parameters, initial weights, calls and numbers.

        h_t = φ(W x_t + U h_{t-1} + b)

    A `torch.nn.RNN` in every other respect, see `LSTM`; φ, the `nonlinearity`, is "tanh" or "relu".

    >>> output, h_n = RNN(3, 4, nonlinearity="relu")(torch.randn(7, 3))
    >>> output.shape, h_n.shape
    (torch.Size([7, 4]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            engine,
            num_layers=num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Any, hx: Tensor | None = None, *, lengths: Tensor | None = None) -> tuple[Any, Tensor]:
        """Outputs and the final `h_n`, (D·L, B, H); the arguments and errors are those of `LSTM.forward`."""
        output, [h] = self._run(input, hx, lengths)
        return output, h
