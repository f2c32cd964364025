"""The seven laws over all layers and whole models, in every available form of the operators."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.mixers import build_layer
from ssp_runtime.mixers.base import MixerConfig
from ssp_runtime.mixers.bidirectional import (
    BidirectionalConfig,
    BidirectionalMamba,
    BidirectionalMambaConfig,
    TwoSidedConfig,
    WholeMambaConfig,
    WholeSimpleConfig,
)
from ssp_runtime.models.blocks import CausalBlock
from ssp_runtime.models.config import BlockConfig, ModelConfig
from ssp_runtime.models.model import Classifier, LanguageModel
from ssp_runtime.run import Run
from ssp_runtime.state import initial_state
from tests.ssp_runtime import subjects
from tests.ssp_runtime.laws import (
    LAWS,
    LENGTH,
    Law,
    law_1_forward_is_the_folded_step,
    law_3_of_whole_sequences,
    law_6_conversion_changes_nothing,
)
from tests.ssp_runtime.subjects import (
    CASES,
    EXTREME_CASES,
    EXTREMES,
    KERNELS,
    MIXERS,
    MODELS,
    OF_NUMBERS,
    WIDTH,
    Extreme,
    running_on,
)

EVERY_LAW = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
IN_EVERY_FORM = pytest.mark.parametrize("kernels", KERNELS)
NARROW = pytest.mark.parametrize("law", [law_1_forward_is_the_folded_step, law_6_conversion_changes_nothing])

BOTH_WAYS: dict[str, MixerConfig] = {
    "bidirectional_mamba(s6)": BidirectionalMambaConfig(ssp=MIXERS["s6"]),
    "bidirectional_mamba(s4d)": BidirectionalMambaConfig(ssp=MIXERS["s4d"]),
    "bidirectional(mamba)": BidirectionalConfig(ssp=MIXERS["mamba(s6)"]),
    "whole_mamba(s6)": WholeMambaConfig(ssp=BidirectionalConfig(ssp=MIXERS["s6"])),
    "whole_simple(s4d)": WholeSimpleConfig(ssp=TwoSidedConfig(ssp=MIXERS["s4d"])),
    "whole_mamba(s4)": WholeMambaConfig(ssp=TwoSidedConfig(ssp=MIXERS["s4"])),
}
BIDIRECTIONAL = replace(OF_NUMBERS, layers=tuple(BlockConfig(mixer=mixer) for mixer in BOTH_WAYS.values()))
CLASSIFIERS = {"causal": OF_NUMBERS, "bidirectional": BIDIRECTIONAL}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@EVERY_LAW
@pytest.mark.parametrize(("name", "kernels"), CASES)
def test_mixers(law: Law, name: str, kernels: str) -> None:
    with running_on(kernels):
        law(subjects.mixer(name))


@EVERY_LAW
@pytest.mark.parametrize(("name", "kernels"), EXTREME_CASES)
@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
def test_mixers_at_the_extremes(law: Law, name: str, kernels: str, extreme: Extreme) -> None:
    with running_on(kernels):
        law(subjects.at(extreme, subjects.mixer(name)))


@EVERY_LAW
@IN_EVERY_FORM
@pytest.mark.parametrize("name", MODELS)
def test_whole_models(law: Law, name: str, kernels: str) -> None:
    with running_on(kernels):
        law(MODELS[name]())


@NARROW
@pytest.mark.parametrize("name", MIXERS)
def test_mixers_in_float32(law: Law, name: str) -> None:
    law(subjects.in_dtype(subjects.mixer(name), torch.float32, 1e-5))


@NARROW
@pytest.mark.parametrize("name", MODELS)
def test_whole_models_in_float32(law: Law, name: str) -> None:
    law(subjects.in_dtype(MODELS[name](), torch.float32, 1e-4))


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_with_bfloat16_weights(name: str) -> None:
    law_1_forward_is_the_folded_step(subjects.served_in_bfloat16(subjects.mixer(name)))


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_with_bfloat16_weights(name: str) -> None:
    law_1_forward_is_the_folded_step(subjects.served_in_bfloat16(MODELS[name]()))


@IN_EVERY_FORM
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_rows_of_a_bidirectional_layer_do_not_see_each_other(name: str, kernels: str) -> None:
    layer = subjects.randomized(build_layer(BOTH_WAYS[name], WIDTH))
    with running_on(kernels):
        law_3_of_whole_sequences(layer.encode, subjects.numbers(4, LENGTH, WIDTH), 1e-10)


@IN_EVERY_FORM
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_rows_of_a_classifier_do_not_see_each_other(name: str, kernels: str) -> None:
    of_numbers = CLASSIFIERS[name]
    of_tokens = replace(of_numbers, embedding=subjects.OF_TOKENS.embedding)
    with running_on(kernels):
        law_3_of_whole_sequences(_classifier(of_numbers), subjects.numbers(4, LENGTH), 1e-10)
        law_3_of_whole_sequences(_classifier(of_tokens), subjects.token_ids(4, LENGTH), 1e-10)


@torch.no_grad()
def test_a_bidirectional_layer_reads_a_reversed_sequence_with_its_branches_swapped() -> None:
    layer = subjects.randomized(BidirectionalMamba(WIDTH, BidirectionalMambaConfig(ssp=MIXERS["s6"])))
    x = subjects.numbers(2, LENGTH, WIDTH)
    y = layer.encode(x)
    layer.forward_branch, layer.backward_branch = layer.backward_branch, layer.forward_branch
    torch.testing.assert_close(layer.encode(x.flip(1)).flip(1), y)


@torch.no_grad()
def test_a_language_model_folds_without_logits() -> None:
    model, ids = subjects.randomized(LanguageModel(subjects.OF_TOKENS)), subjects.token_ids(3, LENGTH)
    lengths, state = torch.tensor([LENGTH, 1, 17]), model.initial_state(3)
    folded, (_, expected) = model.fold(ids, state, lengths_B=lengths), model(ids, state, lengths_B=lengths)
    assert folded.keys() == expected.keys()
    assert all(torch.equal(folded[name], tensor) for name, tensor in expected.items())


@torch.no_grad()
def test_the_residual_stream_is_float32_between_bfloat16_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen, compute = LanguageModel(subjects.OF_TOKENS), list[torch.dtype](), CausalBlock.compute

    def watched(block: CausalBlock, x: Tensor, run: Run) -> Tensor:
        y = compute(block, x, run)
        seen.extend([x.dtype, y.dtype])
        return y

    to_recurrent(model)
    monkeypatch.setattr(CausalBlock, "compute", watched)
    logits, _ = model.bfloat16()(subjects.token_ids(2, 3), model.initial_state(2))
    assert set(seen) == {torch.float32} and logits.dtype == torch.bfloat16


@torch.no_grad()
def test_a_regressor_with_bfloat16_weights_takes_float32_numbers() -> None:
    model, numbers = subjects.sequence_regressor().fold.bfloat16(), subjects.numbers(2, 1)[:, 0].bfloat16()
    state = initial_state(model.state_spec, 2, torch.bfloat16, numbers.device)
    y, _ = model.step(numbers.float(), state)
    assert torch.equal(y, model.step(numbers, state)[0]) and y.shape == (2, 2)


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_with_bfloat16_weights(name: str) -> None:
    model, numbers = _classifier(CLASSIFIERS[name]).float(), subjects.numbers(2, LENGTH).bfloat16()
    expected = model(numbers.float())
    to_recurrent(model)
    actual = model.bfloat16()(numbers)
    assert (actual - expected).abs().max() <= 2e-2 * expected.abs().max()


def _classifier(config: ModelConfig) -> Classifier:
    return subjects.randomized(Classifier(config))
