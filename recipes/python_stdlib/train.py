"""Trains the shipped byte-level Mamba on the interpreter's standard library.

python -m recipes.python_stdlib.train
ssp-model convert runs/python-bytes ssp_runtime/shipped/python-bytes
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from recipes.python_stdlib.corpus import SEPARATOR, load
from ssp_runtime.commands.train import summary
from ssp_runtime.formats.artifact import Description, save
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.models.config import BlockConfig, LanguageModelHeadConfig, ModelConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.tokenizers import ByteTokenizer
from ssp_runtime.training.loop import LoopConfig, train
from ssp_runtime.training.optimizer import OptimizerConfig
from ssp_runtime.training.tasks import NextToken

CONFIG = ModelConfig(
    d_model=144,
    embedding=TokenEmbeddingConfig(vocab_size=256),
    layers=(BlockConfig(mixer=MambaConfig()),) * 6,
    head=LanguageModelHeadConfig(),
)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """`steps` of 2,048 tokens; an interrupted run goes on from its checkpoint in `out`."""

    out: Path = Path("runs/python-bytes")
    steps: int = 6500
    lr: float = 4e-3
    seed: int = 0
    threads: int = 2


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    corpus = load()
    heldout = [content + SEPARATOR for _, content in corpus.heldout_files]
    task = NextToken(corpus.train, heldout, batch_size=8, length=256, bos_id=SEPARATOR[0])
    loop = LoopConfig(
        steps=flags.steps,
        optimizer=OptimizerConfig(lr=flags.lr, warmup_steps=200),
        checkpoint_every=250,
    )
    model = LanguageModel(CONFIG)
    report = train(model, task, loop, flags.out / "checkpoint.pt")
    bits = report.score.value
    save(
        flags.out,
        model,
        Description(
            model=CONFIG,
            tokenizer=ByteTokenizer(),
            description=f"bytes of Python's standard library, {bits:.3f} bits per byte on held-out files",
            training={**summary(report), "python": corpus.python_version, "corpus_sha256": corpus.checksum},
        ),
    )
    print(f"held-out bits per byte: {bits:.4f} after {report.seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main(tyro.cli(Flags))
