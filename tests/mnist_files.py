"""MNIST's four idx files, of random images."""

import struct
from pathlib import Path

import torch


def write_mnist(folder: Path, train: int, test: int, seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    made = {}
    generator = torch.Generator().manual_seed(seed)
    for part, count in (("train", train), ("t10k", test)):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        labels = torch.randint(10, (count,), dtype=torch.uint8, generator=generator)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + values.numpy().tobytes())
        made[part] = images, labels
    return made
