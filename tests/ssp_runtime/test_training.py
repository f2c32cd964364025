"""Training: it learns, it resumes exactly, and its scores are what they say."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.models.architectures import regressor_config
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    ModelConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.models.model import Classifier, LanguageModel, Model, build_model
from ssp_runtime.training.loop import LoopConfig, train
from ssp_runtime.training.optimizer import OptimizerConfig, build_optimizer, build_schedule
from ssp_runtime.training.regression import Regression
from ssp_runtime.training.series import Series
from ssp_runtime.training.tasks import Classification, Labelled, NextToken, Task, total_nats

VOCAB = 8


def language_model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(
        ModelConfig(
            d_model=16,
            embedding=TokenEmbeddingConfig(vocab_size=VOCAB),
            layers=(BlockConfig(mixer=MambaConfig()), BlockConfig(mixer=MambaConfig(ssp=S4DConfig(d_state=4)))),
            head=LanguageModelHeadConfig(),
        )
    )


def counting(length: int) -> list[int]:
    return list(itertools.islice(itertools.cycle(range(VOCAB)), length))


def next_token() -> NextToken:
    return NextToken(counting(2000), [counting(100)], batch_size=4, length=16, bos_id=VOCAB - 1)


def loop(steps: int, every: int = 0) -> LoopConfig:
    optimizer = OptimizerConfig(lr=1e-2, warmup_steps=5)
    return LoopConfig(steps=steps, optimizer=optimizer, checkpoint_every=every, progress=False)


def test_a_language_model_learns_to_count() -> None:
    report = train(language_model(), next_token(), loop(80))
    assert report.score.value < 0.2 < math.log2(VOCAB)
    assert report.tokens == 80 * 4 * 16


def test_a_classifier_learns_which_letter_prevails() -> None:
    torch.manual_seed(0)
    sequences = [torch.randint(0, 2, (length,)).tolist() for length in range(5, 205)]
    data = Labelled(sequences=sequences, labels=[int(sum(s) * 2 > len(s)) for s in sequences])
    model = Classifier(
        ModelConfig(
            d_model=8,
            embedding=TokenEmbeddingConfig(vocab_size=2),
            layers=(BlockConfig(mixer=BidirectionalMambaConfig()),),
            head=ClassificationHeadConfig(num_classes=2),
        )
    )
    report = train(model, Classification(data, data, batch_size=16, seed=0, noise=0.05), loop(60))
    assert report.score.value > 0.9


@pytest.mark.parametrize("task", ["next_token", "classification", "regression"])
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(task: str, tmp_path: Path) -> None:
    def fresh() -> tuple[Model, Task]:
        if task == "next_token":
            return language_model(), next_token()
        torch.manual_seed(0)
        if task == "regression":
            wave = torch.sin(torch.arange(400.0))[:, None]
            series = [Series(inputs=wave[:-1], targets=wave[1:])]
            shape = regressor_config("mamba", d_model=8, num_layers=1, dropout=0.3, d_input=1, d_output=1)
            return build_model(shape), Regression(series, heldout_fraction=0.1, batch_size=4, length=16)
        model = Classifier(
            ModelConfig(
                d_model=8,
                embedding=TokenEmbeddingConfig(vocab_size=VOCAB),
                layers=(BlockConfig(mixer=BidirectionalMambaConfig(), dropout=0.3),),
                head=ClassificationHeadConfig(num_classes=2),
            )
        )
        data = Labelled(sequences=[counting(n) for n in range(1, 21)], labels=[n % 2 for n in range(20)])
        return model, Classification(data, data, batch_size=8, seed=1, noise=0.2)

    whole, its_task = fresh()
    train(whole, its_task, loop(10))
    first, first_task = fresh()
    checkpoint = tmp_path / "checkpoint.pt"

    calls, uninterrupted = itertools.count(1), first_task.loss

    def interrupted(model: Model) -> torch.Tensor:
        if next(calls) == 8:
            raise KeyboardInterrupt
        return uninterrupted(model)

    first_task.loss = interrupted  # type: ignore[method-assign]  # stands for Ctrl-C within step 8
    with pytest.raises(KeyboardInterrupt):
        train(first, first_task, loop(10, every=3), checkpoint)
    second, second_task = fresh()
    torch.rand(7)  # another random state than the first had
    train(second, second_task, loop(10, every=3), checkpoint)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_held_out_sequences_are_scored_each_by_itself() -> None:
    model = language_model().eval()
    sequences = [counting(n) for n in (1, 5, 2100)]
    alone = [total_nats(model, [sequence], bos_id=0) for sequence in sequences]
    nats, tokens = total_nats(model, sequences, bos_id=0)
    assert tokens == sum(count for _, count in alone) == 2106
    assert nats == pytest.approx(sum(value for value, _ in alone), rel=1e-6)
    uniform = [value / count for value, count in alone]
    assert all(abs(value - math.log(VOCAB)) < 1.5 for value in uniform)


def test_rows_go_on_where_they_stopped_with_their_state() -> None:
    """Two steps of 16 tokens cost what one of 32 does, the state carried over."""
    model = language_model()
    halves = NextToken(counting(400), [], batch_size=2, length=16, bos_id=0)
    whole = NextToken(counting(400), [], batch_size=2, length=32, bos_id=0)
    mean = (halves.loss(model) + halves.loss(model)) / 2
    assert torch.allclose(mean, whole.loss(model), atol=1e-6)


def test_with_resets_a_text_is_scored_as_if_it_came_alone() -> None:
    model, text = language_model(), [1, 2, 3, 4, 5] * 3
    alone = NextToken([0, *text, 0], [], batch_size=1, length=16, bos_id=0)
    later = NextToken([*counting(16), 0, *text, 0], [], batch_size=1, length=16, bos_id=0, resets=True)
    later.loss(model)
    assert torch.allclose(later.loss(model), alone.loss(model), atol=1e-6)
    forgotten = NextToken([*counting(16), 0, *text, 0], [], batch_size=1, length=16, bos_id=0)
    forgotten.loss(model)
    assert not torch.allclose(forgotten.loss(model), alone.loss(model), atol=1e-6)


def test_state_space_parameters_learn_slowly_and_do_not_decay() -> None:
    model = language_model()
    ssp, matrices, vectors = build_optimizer(model, OptimizerConfig(lr=1.0, weight_decay=0.3)).param_groups
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {named[id(p)].split(".")[-1] for p in ssp["params"]} == {"A_log", "A_real", "A_imag", "B", "C", "inv_dt"}
    assert (ssp["lr"], ssp["weight_decay"]) == (0.1, 0.0)
    assert (matrices["lr"], matrices["weight_decay"]) == (1.0, 0.3)
    assert vectors["weight_decay"] == 0.0
    assert len(named) == len(ssp["params"]) + len(matrices["params"]) + len(vectors["params"])


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=10, final_lr_fraction=0.1)
    optimizer = build_optimizer(language_model(), config)
    schedule = build_schedule(optimizer, config, 110)
    rates = []
    for _ in range(111):
        rates.append(schedule.get_last_lr()[1])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0) == rates[10]
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)


def test_a_diverging_loss_stops_the_training() -> None:
    model = language_model()
    with torch.no_grad():
        model.backbone.embedding.weight.fill_(torch.nan)  # type: ignore[operator]  # a parameter
    with pytest.raises(FloatingPointError, match="lower --lr"):
        train(model, next_token(), loop(1))


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        NextToken(counting(10), [], batch_size=4, length=16, bos_id=0)
