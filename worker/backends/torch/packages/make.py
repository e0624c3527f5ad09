"""Writes the test models: each PyTorch module as TorchScript (.pt) and as a package compiled by AOTInductor (.pt2).

Usage: make.py FOLDER [NAME ...]. Files are written beside their place and moved there, so that a run cut short leaves none
that is not whole. Every module is written again only if its files are not there.
"""

import os
import sys
from typing import Dict, List, Tuple

import torch
from torch import nn

MOST_ROWS = 1024


class Perceptron(nn.Module):
    """30-64-32-2, as small as models come: what is around it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class AddSub(nn.Module):
    """Two arguments and two results."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        return a + b, a - b


class Nested(nn.Module):
    """Containers on both sides."""

    def forward(self, pair: List[torch.Tensor], named: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
        total = pair[0] + pair[1] * named["scale"]
        return {"total": total, "shifted": total + named["shift"]}


class Counts(nn.Module):
    """Whole numbers in, truth values out."""

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        return x.cumsum(1), x > 2


class Wide(nn.Module):
    """An output that is worth handing out without a copy."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0 + 1.0


class Turned(nn.Module):
    """Compiled for one batch size only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) @ x.transpose(0, 1)


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape)


# Name: the module, its example, and which of the example's extents are any (a tree like the example's).
def models():
    batch = {0: torch.export.Dim("batch", min=1, max=MOST_ROWS)}
    return {
        "perceptron": (Perceptron(), (rows(30),), (batch,)),
        "add_sub": (AddSub(), (rows(2), rows(2)), (batch, batch)),
        "nested": (
            Nested(),
            ([rows(3), rows(3)], {"scale": rows(3), "shift": rows(3)}),
            ([batch, batch], {"scale": batch, "shift": batch}),
        ),
        "counts": (Counts(), (torch.ones(4, 5, dtype=torch.int64),), (batch,)),
        "wide": (Wide(), (rows(8192),), (batch,)),
        "turned": (Turned(), (rows(3),), None),
    }


def write(folder: str, name: str, module: nn.Module, example, dynamic) -> None:
    script, package = (os.path.join(folder, name + end) for end in (".pt", ".pt2"))
    if os.path.exists(script) and os.path.exists(package):
        return
    module = module.eval()
    torch.jit.script(module).save(script + ".new")
    os.replace(script + ".new", script)
    exported = torch.export.export(module, example, dynamic_shapes=dynamic)
    unfinished = os.path.join(folder, "unfinished." + name + ".pt2")
    # The version is what the mesh refuses a package of another libtorch by, before it opens it.
    settings = {"aot_inductor.metadata": {"torch_version": torch.__version__}}
    torch._inductor.aoti_compile_and_package(exported, package_path=unfinished, inductor_configs=settings)
    os.replace(unfinished, package)


def main() -> None:
    folder, *names = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(1)
    for name, (module, example, dynamic) in models().items():
        if not names or name in names:
            write(folder, name, module, example, dynamic)


main()
