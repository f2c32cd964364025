"""The training loop: steps, progress, checkpoints, resume."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ssp_runtime.mixers.base import Natural
from ssp_runtime.models.model import Model
from ssp_runtime.training.optimizer import OptimizerConfig, build_optimizer, build_schedule, clip
from ssp_runtime.training.tasks import Score, Task


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """`checkpoint_every` and `evaluate_every` count steps; 0 means only at the end."""

    steps: Natural = 1000
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint_every: Natural = 500
    evaluate_every: Natural = 0
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Report:
    score: Score
    steps: int
    tokens: int
    seconds: float


def train(model: Model, task: Task, config: LoopConfig, checkpoint: Path | None = None) -> Report:
    """Trains in place until `config.steps`, from `checkpoint` on where that file exists.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the last checkpoint is from before.
        ValueError: the checkpoint is damaged, or of another model.
    """
    run = _Run(model, task, config)
    if checkpoint is not None and checkpoint.exists():
        _resume(run, checkpoint)
    started = time.monotonic()
    model.train()
    with tqdm(total=config.steps, initial=run.step, disable=not config.progress, unit="step", mininterval=1) as bar:
        while run.step < config.steps:
            loss = run.advance()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if checkpoint is not None and _due(run.step, config.checkpoint_every, config.steps):
                _save(run.state_dict(), checkpoint)
            if config.evaluate_every and run.step % config.evaluate_every == 0:
                score = evaluate(model, task)
                bar.write(f"step {run.step}: {score.name} {score.value:.4f}")
    seconds = run.seconds_before + time.monotonic() - started
    return Report(score=evaluate(model, task), steps=run.step, tokens=run.step * task.tokens_per_step, seconds=seconds)


def evaluate(model: Model, task: Task) -> Score:
    """The task's held-out score, in evaluation mode."""
    model.eval()
    score = task.evaluate(model)
    model.train()
    return score


class _Run:
    """All that a resumed training needs."""

    def __init__(self, model: Model, task: Task, config: LoopConfig) -> None:
        self.model, self.task, self.config = model, task, config
        self.optimizer = build_optimizer(model, config.optimizer)
        self.schedule = build_schedule(self.optimizer, config.optimizer, config.steps)
        self.step = 0
        self.seconds_before = 0.0
        self._started = time.monotonic()

    def advance(self) -> float:
        loss = self.task.loss(self.model)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step}: lower --lr")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip(self.model, self.config.optimizer)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds_before + time.monotonic() - self._started,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "task": self.task.state_dict(),
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds_before = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.task.load_state_dict(state["task"])
        torch.set_rng_state(state["random"])


def _resume(run: _Run, checkpoint: Path) -> None:
    try:
        run.load_state_dict(torch.load(checkpoint, weights_only=True))
    except Exception as error:  # a damaged pickle fails in as many ways as there are
        raise ValueError(f"{checkpoint} is damaged or of another model: remove it, or change --out") from error


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _save(state: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
