"""Makes the test model with real weights that only PyTorch can make: Silero's voice activity detector as a stateful model.

usage: silero.py FOLDER PACKAGE, where PACKAGE is the folder into which pip has put silero-vad

The package's TorchScript module keeps its state in itself. What it wraps takes its state and gives the next one; so does what is
written here, with the same weights:

  vad.pt       audio [n, 512], context [n, 64], hidden [n, 2, 128] -> speech [n, 1], the next context and the next hidden state
  audio.f32    some audio at 16 kHz for each of several sequences, in chunks of 512 samples
  speech.f32   what the package's own module answers to each chunk, with its state reset before each sequence
  sequences    how many sequences there are
"""

import math
import pathlib
import sys
from typing import Tuple

import numpy as np
import torch

SEQUENCES, STEPS, CHUNK, CONTEXT, RATE = 8, 24, 512, 64, 16_000


class Stateful(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(
        self, audio: torch.Tensor, context: torch.Tensor, hidden: torch.Tensor
    ) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        whole = torch.cat([context, audio], 1)
        speech, after = self.inner(whole, hidden.transpose(0, 1).contiguous())
        return speech, whole[:, -64:], after.transpose(0, 1)


def audio():
    """Voices of a kind: harmonics of a pitch that glides, louder and softer, over noise."""
    generator = torch.Generator().manual_seed(7)
    time = torch.arange(STEPS * CHUNK) / RATE
    rows = []
    for sequence in range(SEQUENCES):
        pitch = 110 + 25 * sequence + 30 * torch.sin(2 * math.pi * (0.7 + 0.2 * sequence) * time)
        phase = 2 * math.pi * torch.cumsum(pitch / RATE, 0)
        voice = sum(torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 12))
        loud = torch.clamp(torch.sin(2 * math.pi * (1.5 + 0.4 * sequence) * time), min=0)
        noise = torch.randn(STEPS * CHUNK, generator=generator)
        rows.append(0.2 * voice * loud + 0.01 * noise)
    return torch.stack(rows).reshape(SEQUENCES, STEPS, CHUNK).float()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    # Only its file: the package itself wants more than that.
    file = pathlib.Path(sys.argv[2]) / "silero_vad" / "data" / "silero_vad.jit"
    original = torch.jit.load(str(file), map_location="cpu").eval()
    chunks = audio()
    speech = np.zeros((SEQUENCES, STEPS), dtype=np.float32)
    with torch.no_grad():
        for sequence in range(SEQUENCES):
            original.reset_states()
            for step in range(STEPS):
                speech[sequence, step] = original(chunks[sequence, step][None], RATE).item()
    stateful = torch.jit.script(Stateful(original._model).eval())
    torch.jit.save(stateful, str(folder / "vad.pt"))
    chunks.numpy().astype("<f4").tofile(folder / "audio.f32")
    speech.astype("<f4").tofile(folder / "speech.f32")
    (folder / "sequences").write_text(f"{SEQUENCES}\n")


main()
