"""AdamW as the thesis trains: state space parameters slowly and without decay, the rate along a cosine."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from ssp_runtime.mixers.base import Coefficients, Natural, PositiveReal, Probability

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """`lr` is the peak rate, reached after `warmup_steps`; it falls along a cosine to `final_lr_fraction` of that."""

    lr: PositiveReal = 3e-3
    ssp_lr_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1
    warmup_steps: Natural = 100
    final_lr_fraction: Fraction = 0.1
    betas: tuple[Probability, Probability] = (0.9, 0.95)
    clip_norm: PositiveReal = 1.0


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AdamW:
    """Three groups: state space parameters (`Coefficients`), matrices (decayed), vectors (not decayed)."""
    ssp = {id(p) for module in model.modules() if isinstance(module, Coefficients) for p in module.parameters()}
    others = [p for p in model.parameters() if id(p) not in ssp]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if id(p) in ssp], "lr": config.lr * config.ssp_lr_fraction},
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2]},
    ]
    return AdamW(groups, lr=config.lr, weight_decay=0.0, betas=config.betas)


def build_schedule(optimizer: AdamW, config: OptimizerConfig, total_steps: int) -> LambdaLR:
    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine

    return LambdaLR(optimizer, factor)


def clip(model: nn.Module, config: OptimizerConfig) -> float:
    """Bounds the gradient's norm; returns what it was."""
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm))
