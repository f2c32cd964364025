"""Trains the shipped promoter classifier, a bidirectional Mamba, and measures it on five folds.

python -m recipes.promoters.train
ssp-model convert runs/promoters ssp_runtime/shipped/arabidopsis-promoters
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from sklearn.metrics import accuracy_score, matthews_corrcoef

from recipes.promoters.data import Promoters, load
from ssp_runtime.formats.artifact import Description, save
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.models.config import BlockConfig, ClassificationHeadConfig, ModelConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import Classifier
from ssp_runtime.tokenizers import DNATokenizer
from ssp_runtime.training.loop import LoopConfig, train
from ssp_runtime.training.optimizer import OptimizerConfig
from ssp_runtime.training.tasks import Classification, Labelled, classify

LABELS = ("non-promoter", "promoter")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """`folds` are held out in turn; the model of the first is the one written to `out`."""

    out: Path = Path("runs/promoters")
    folds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: float = 8
    batch_size: int = 32
    d_model: int = 48
    layers: int = 2
    d_state: int = 8
    d_conv: int = 8
    dropout: float = 0.2
    noise: float = 0.05
    lr: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0
    threads: int = 2


def model_config(flags: Flags) -> ModelConfig:
    mixer = BidirectionalMambaConfig(ssp=S6Config(d_state=flags.d_state), d_conv=flags.d_conv, expand=2)
    return ModelConfig(
        d_model=flags.d_model,
        embedding=TokenEmbeddingConfig(vocab_size=DNATokenizer().vocab_size),
        layers=(BlockConfig(mixer=mixer, dropout=flags.dropout),) * flags.layers,
        head=ClassificationHeadConfig(num_classes=len(LABELS)),
    )


def labelled(data: Promoters, rows: np.ndarray) -> Labelled:
    tokenizer = DNATokenizer()
    chosen = np.flatnonzero(rows)
    return Labelled(
        sequences=[tokenizer.encode(data.sequences[i]) for i in chosen], labels=[int(data.labels[i]) for i in chosen]
    )


def description(model: Classifier, result: dict[str, float]) -> Description:
    return Description(
        model=model.config,
        tokenizer=DNATokenizer(),
        labels=LABELS,
        description=f"Arabidopsis TATA promoters (251 letters), accuracy {result['accuracy']:.3f} on a held-out fold",
        training={"heldout": result, "torch": str(torch.__version__), "data": "Umarov and Solovyev, 2017"},
    )


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    data = load()
    results = []
    for fold in flags.folds:
        torch.manual_seed(flags.seed)
        heldout = labelled(data, data.fold == fold)
        task = Classification(
            labelled(data, data.fold != fold), heldout, batch_size=flags.batch_size, seed=flags.seed, noise=flags.noise
        )
        model = Classifier(model_config(flags))
        steps = int(flags.epochs * (data.fold != fold).sum() / flags.batch_size)
        optimizer = OptimizerConfig(lr=flags.lr, weight_decay=flags.weight_decay, warmup_steps=steps // 20)
        started = time.monotonic()
        train(model, task, LoopConfig(steps=steps, optimizer=optimizer, evaluate_every=steps // 6))
        predicted = classify(model, heldout.sequences).argmax(-1).numpy()
        result: dict[str, float] = {
            "fold": fold,
            "accuracy": float(accuracy_score(heldout.labels, predicted)),
            "mcc": float(matthews_corrcoef(heldout.labels, predicted)),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(result, flush=True)
        results.append(result)
        flags.out.mkdir(parents=True, exist_ok=True)
        if fold == flags.folds[0]:
            save(flags.out, model, description(model, result))
    (flags.out / "folds.json").write_text(json.dumps({"flags": asdict(flags), "folds": results}, default=str, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Flags))
