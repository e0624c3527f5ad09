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


class Weighed(nn.Module):
    """An input without rows whose length must be that of the others."""

    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * weight


class Lookup(nn.Module):
    """Fails on numbers that are not in its table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table(x)


class Reordered(nn.Module):
    """A buffer of whole numbers, which must stay such."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x.index_select(1, self.order))


class Endless(nn.Module):
    """Asks for more memory than there is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True).expand(-1, 1125899906842624) + 1.0


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape)


# Name: the module, its example, which of the example's extents are any (a tree like the example's), and settings of the compiler.
def models():
    batch = {0: torch.export.Dim("batch", min=1, max=MOST_ROWS)}
    length, blocks = torch.export.Dim("length", max=64), torch.export.Dim("blocks", max=8)
    numbers = (torch.zeros(4, 6, dtype=torch.int64),)
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
        "weighed": (Weighed(), (rows(6), torch.randn(6)), ({0: batch[0], 1: length}, {0: length})),
        "blocks": (Wide(), (rows(64),), ({0: batch[0], 1: 32 * blocks},)),
        "reordered": (Reordered(), (rows(4),), (batch,), {"cpp.threads": 1}),
        "endless": (Endless(), (rows(3),), (batch,)),
        # What a kernel throws in a parallel section ends the process, so one is compiled without.
        "lookup": (Lookup(), numbers, (batch,), {"cpp.threads": 1}),
        "lookup_parallel": (Lookup(), numbers, (batch,), {"cpp.threads": 2}),
        # Weights beside the library, and nowhere.
        "weights_beside": (
            Perceptron(),
            (rows(30),),
            (batch,),
            {"aot_inductor.package_constants_on_disk_format": "binary_blob"},
        ),
        "weights_nowhere": (Perceptron(), (rows(30),), (batch,), {"aot_inductor.package_constants_in_so": False}),
    }


def write(folder: str, name: str, module: nn.Module, example, dynamic, options=None) -> None:
    script, package = (os.path.join(folder, name + end) for end in (".pt", ".pt2"))
    if os.path.exists(script) and os.path.exists(package):
        return
    module = module.eval()
    torch.jit.script(module).save(script + ".new")
    os.replace(script + ".new", script)
    exported = torch.export.export(module, example, dynamic_shapes=dynamic)
    unfinished = os.path.join(folder, "unfinished." + name + ".pt2")
    # The version is what the mesh refuses a package of another libtorch by, before it opens it.
    settings = {"aot_inductor.metadata": {"torch_version": torch.__version__}, **(options or {})}
    torch._inductor.aoti_compile_and_package(exported, package_path=unfinished, inductor_configs=settings)
    os.replace(unfinished, package)


def main() -> None:
    folder, *names = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(1)
    for name, model in models().items():
        if not names or name in names:
            write(folder, name, *model)


main()
