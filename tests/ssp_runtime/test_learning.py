"""Every architecture learns a task that needs memory, and after conversion gives the same answers token by token."""

import pytest
import torch

from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.models.architectures import ARCHITECTURES, model_config
from ssp_runtime.models.model import LanguageModel
from ssp_runtime.training.loop import LoopConfig, train
from ssp_runtime.training.optimizer import OptimizerConfig
from tests.ssp_runtime.laws import folded_step
from tests.ssp_runtime.memory_tasks import (
    NOTHING,
    AssociativeRecall,
    DelayedCopying,
    MemoryTask,
    SelectiveCopying,
)

# Those whose recurrence is the same at every token; all others choose what they keep.
TIME_INVARIANT = {"mamba-s4d", "simple-s4d", "s4", "simple-s4", "dss", "lru", "s5", "gss", "mega-ema"}
# Those whose state is a matrix, written by keys and values.
ASSOCIATIVE = {
    *("mamba2", "gla", "hgrn2", "linear-attention", "retnet", "deltanet", "gated-deltanet", "kda"),
    *("rwkv5", "rwkv6", "rwkv7", "xlstm", "xlstm-7-1"),
}
BAR = 0.8  # chance is 1/8

NAMES = [name for name in ARCHITECTURES if not name.startswith("bidirectional")]


def task_of(name: str) -> MemoryTask:
    if name in TIME_INVARIANT:
        return DelayedCopying()
    return AssociativeRecall() if name in ASSOCIATIVE else SelectiveCopying()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_remember(name: str) -> None:
    torch.manual_seed(0)
    task = task_of(name)
    model = LanguageModel(model_config(name, d_model=32, num_layers=2, dropout=0.0, vocab_size=task.vocab_size))
    optimizer = OptimizerConfig(lr=task.LR, warmup_steps=20)
    report = train(model, task, LoopConfig(steps=task.STEPS, optimizer=optimizer, progress=False))
    assert report.score.value > BAR
    _assert_steps_answer_the_same(model, task)


@torch.no_grad()
def _assert_steps_answer_the_same(model: LanguageModel, task: MemoryTask) -> None:
    ids, targets = task.examples(64)
    trained, _ = model(ids, model.initial_state(len(ids)))
    to_recurrent(model)
    stepped, _ = folded_step(model, ids, model.initial_state(len(ids)))
    asked = targets != NOTHING
    assert torch.equal(stepped.argmax(-1)[asked], trained.argmax(-1)[asked])
