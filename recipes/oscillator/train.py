"""Trains a small LRU to forecast a noisy oscillator, in seconds.

python -m recipes.oscillator.train
ssp-model convert runs/oscillator models/oscillator
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from recipes.oscillator.series import Numbers, Oscillator
from ssp_runtime.commands.train import summary
from ssp_runtime.formats.artifact import Description, save
from ssp_runtime.mixers.lru import LRUConfig
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import BlockConfig, ModelConfig, NormConfig, NumberEmbeddingConfig, ValuesHeadConfig
from ssp_runtime.models.model import SequenceRegressor
from ssp_runtime.training.loop import LoopConfig, train
from ssp_runtime.training.optimizer import OptimizerConfig
from ssp_runtime.training.regression import Regression
from ssp_runtime.training.series import Series

CONFIG = ModelConfig(
    d_model=16,
    embedding=NumberEmbeddingConfig(d_input=1),
    layers=(BlockConfig(mixer=SimpleConfig(ssp=LRUConfig(d_state=32)), norm=NormConfig(kind="layer")),),
    head=ValuesHeadConfig(d_output=1),
    final_norm=None,
)
STEPS = 20_000
HELDOUT_FRACTION = 0.1


@dataclass(frozen=True, kw_only=True)
class Flags:
    """`steps` of 16 rows of 64 values; an interrupted run goes on from its checkpoint in `out`."""

    out: Path = Path("runs/oscillator")
    steps: int = 300
    lr: float = 1e-2
    seed: int = 0
    threads: int = 1
    progress: bool = True


def main(flags: Flags) -> None:
    torch.set_num_threads(flags.threads)
    torch.manual_seed(flags.seed)
    oscillator = Oscillator()
    values = oscillator.sample(STEPS, flags.seed)
    series = torch.from_numpy(values[:, None])
    task = Regression(
        [Series(inputs=series[:-1], targets=series[1:])], heldout_fraction=HELDOUT_FRACTION, batch_size=16, length=64
    )
    optimizer = OptimizerConfig(lr=flags.lr, warmup_steps=20)
    model = SequenceRegressor(CONFIG)
    loop = LoopConfig(steps=flags.steps, optimizer=optimizer, progress=flags.progress)
    report = train(model, task, loop, flags.out / "checkpoint.pt")
    task.finish(model)
    text = f"forecasts of a noisy oscillator, {report.score.name} {report.score.value:.3f}"
    save(flags.out, model, Description(model=CONFIG, description=text, training=summary(report)))
    print(f"{report.score.name}: {report.score.value:.4f}, after {report.seconds:.0f} seconds")
    print(f"the Kalman filter's: {normalized_rmse(values, oscillator.best_forecasts(values)):.4f}")
    print(f"of the value before: {normalized_rmse(values[1:], values[:-1]):.4f}")


def normalized_rmse(values: Numbers, forecasts: Numbers) -> float:
    """Of the held-out end."""
    cut = int(len(values) * (1 - HELDOUT_FRACTION))
    return float(((values - forecasts)[cut:] ** 2).mean() ** 0.5 / values[:cut].std())


if __name__ == "__main__":
    main(tyro.cli(Flags))
