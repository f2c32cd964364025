"""From starting a server on a checkpoint of another program to its first token.

python -m benchmarks.start

By default the checkpoint is random, in the shape of Mamba 130M as `transformers` saves it (which must be installed).
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.serving import serving
from ssp_client import Client


@dataclass(frozen=True, kw_only=True)
class Flags:
    model: Path | None = None
    repeats: int = 5


def main(flags: Flags) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = flags.model or random_mamba(Path(folder))
        seconds = [first_token(model) for _ in range(flags.repeats)]
    print(f"first token after {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})")


def first_token(model: Path) -> float:
    started = time.perf_counter()
    with serving(model) as server, Client(server.target) as client:
        next(client.generate([1], max_tokens=1, ignore_eos=True))
        return time.perf_counter() - started


def random_mamba(folder: Path) -> Path:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=768, num_hidden_layers=24, vocab_size=50_280)
    MambaForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
