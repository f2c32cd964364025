"""The one backbone, and the models on it: `LanguageModel` and `SequenceRegressor`, both folds; `Classifier`
and `MaskedLanguageModel`, which read whole sequences."""

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from ssp_kernels.padding import masked
from ssp_runtime.errors import InvalidRequest
from ssp_runtime.mixers.base import Fold, Mixer, SequenceLayer
from ssp_runtime.mixers.soft_cap import soft_capped
from ssp_runtime.models.blocks import build_block, build_norm
from ssp_runtime.models.config import (
    ClassificationHeadConfig,
    LanguageModelHeadConfig,
    MaskedLanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    ValuesHeadConfig,
    from_json,
    to_json,
)
from ssp_runtime.models.strands import OtherStrand
from ssp_runtime.run import ParallelRun, Run
from ssp_runtime.state import State, initial_state, prefixed


class TokenEmbedding(nn.Embedding):
    def __init__(self, config: TokenEmbeddingConfig, d_model: int) -> None:
        super().__init__(config.vocab_size, d_model)
        self.scale = config.scale

    def forward(self, ids: Tensor) -> Tensor:
        x = super().forward(ids)
        return x if self.scale == 1 else x * self.scale


class NumberEmbedding(nn.Linear):
    """Vectors of numbers of any floating dtype, projected in that of the weights."""

    def __init__(self, config: NumberEmbeddingConfig, d_model: int) -> None:
        super().__init__(config.d_input, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Backbone(nn.Module):
    """Embedding, blocks, final norm: inputs (B, L), or (B, L, d_input) for numbers, to hidden states (B, L, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config = from_json(to_json(config))  # one made in Python was not checked before
        self.embedding = _build_embedding(config)
        self.embedding_norm = _build_norm(config.embedding_norm, config.d_model)
        self.layers = nn.ModuleList(build_block(block, config.d_model) for block in config.layers)
        self.norm_f = _build_norm(config.final_norm, config.d_model)

    @property
    def is_causal(self) -> bool:
        """Whether no layer looks ahead."""
        return all(isinstance(layer, Mixer) for layer in self.layers)

    def encode(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Whole sequences at once; see `SequenceLayer.encode` for padding."""
        x_BLD, beside = self._embedded(masked(inputs, lengths_B)), dict[str, Tensor]()
        for layer in self._layers():
            x_BLD = layer.encode(x_BLD, lengths_B, beside)
        return self._normalized(x_BLD)

    def _embedded(self, inputs: Tensor) -> Tensor:
        """The start of the residual stream, which is never narrower than float32."""
        x = self.embedding_norm(self.embedding(inputs))
        return torch.as_tensor(x.to(torch.promote_types(x.dtype, torch.float32)))

    def _layers(self) -> list[SequenceLayer]:
        return list(self.layers)  # type: ignore[arg-type]  # a ModuleList does not know what it holds

    def _normalized(self, x: Tensor) -> Tensor:
        weights = next(self.norm_f.parameters(), next(self.embedding.parameters()))
        return torch.as_tensor(self.norm_f(x.to(weights.dtype)))


class CausalBackbone(Fold, Backbone):
    """A backbone whose every layer is a mixer: itself a fold, over a flat state "layers.<i>.<name>"."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if not self.is_causal:
            raise InvalidRequest("to answer at every step needs causal layers; bidirectional ones can only classify")
        self._mixers = [layer for layer in self.layers if isinstance(layer, Mixer)]
        self.state_spec = {
            name: spec
            for i, mixer in enumerate(self._mixers)
            for name, spec in prefixed(mixer.state_spec, f"layers.{i}.").items()
        }

    def compute(self, x: Tensor, run: Run) -> Tensor:
        x = self._embedded(x)
        for i, mixer in enumerate(self._mixers):
            x = mixer.compute(x, run.within(f"layers.{i}."))
        return self._normalized(x)


class CausalModel(Fold):
    """A causal backbone and a head that reads its hidden states at every token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = CausalBackbone(config)
        self.state_spec = self.backbone.state_spec

    @abstractmethod
    def read(self, hidden: Tensor) -> Tensor:
        """Outputs (..., O) of hidden states (..., D)."""

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return self.read(self.backbone.compute(x, run))

    def fold(self, inputs: Tensor, state: State, *, lengths_B: Tensor | None = None) -> State:
        """The state after the inputs (B, L, ...), without any outputs."""
        run = ParallelRun(state, lengths_B)
        self.backbone.compute(masked(inputs, lengths_B), run)
        return run.new

    def initial_state(self, batch: int) -> State:
        weight = next(self.parameters())
        return initial_state(self.state_spec, batch, weight.dtype, weight.device)


class LanguageModel(CausalModel):
    """Scores of the next token after each token: a fold over token ids (B, L), to logits (B, L, V)."""

    def __init__(self, config: ModelConfig) -> None:
        if not isinstance(config.head, LanguageModelHeadConfig) or not isinstance(
            config.embedding, TokenEmbeddingConfig
        ):
            raise InvalidRequest("a language model embeds tokens and has a language_model head")
        super().__init__(config)
        self._soft_cap = config.head.soft_cap
        self.lm_head = nn.Linear(config.d_model, config.embedding.vocab_size, bias=config.head.bias)
        _initialize(self, len(config.layers))
        if config.head.tied:
            self.lm_head.weight = self.backbone.embedding.weight  # type: ignore[assignment]  # of nn.Embedding

    def read(self, hidden: Tensor) -> Tensor:
        return soft_capped(self.lm_head(hidden), self._soft_cap)


class SequenceRegressor(CausalModel):
    """A vector of numbers after each vector: a fold over (B, L, d_input), to (B, L, d_output)."""

    def __init__(self, config: ModelConfig) -> None:
        if not isinstance(config.head, ValuesHeadConfig) or not isinstance(config.embedding, NumberEmbeddingConfig):
            raise InvalidRequest("a sequence regressor embeds numbers and has a values head")
        super().__init__(config)
        self.d_input, self.d_output = config.embedding.d_input, config.head.d_output
        self.values_head = nn.Linear(config.d_model, self.d_output)
        _initialize(self, len(config.layers))

    def read(self, hidden: Tensor) -> Tensor:
        return torch.as_tensor(self.values_head(hidden))


class Classifier(nn.Module):
    """Scores over classes of whole sequences, from the mean of the hidden states over each row's own length."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config.head, ClassificationHeadConfig):
            raise InvalidRequest("a classifier has a classification head")
        self.config = config
        self.backbone = Backbone(config)
        self.decoder = nn.Linear(config.d_model, config.head.num_classes, bias=config.head.bias)
        self.other_strand = _build_other_strand(config, config.head.complement)
        _initialize(self, len(config.layers))

    def forward(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits (B, C) of inputs (B, L) or (B, L, d_input); every row has at least one token."""
        logits_BC = self._read(inputs, lengths_B)
        if self.other_strand is None:
            return logits_BC
        return (logits_BC + self._read(self.other_strand.of_tokens(inputs, lengths_B), lengths_B)) / 2

    def _read(self, inputs: Tensor, lengths_B: Tensor | None) -> Tensor:
        hidden_BLD = masked(self.backbone.encode(inputs, lengths_B), lengths_B)
        count_B = hidden_BLD.shape[1] if lengths_B is None else lengths_B[:, None]
        return torch.as_tensor(self.decoder(hidden_BLD.sum(1) / count_B))


class MaskedLanguageModel(nn.Module):
    """Scores of the token at each place, from all the others: it fills in what is masked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config.head, MaskedLanguageModelHeadConfig) or not isinstance(
            config.embedding, TokenEmbeddingConfig
        ):
            raise InvalidRequest("a masked language model embeds tokens and has a masked_language_model head")
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head = nn.Linear(config.d_model, config.embedding.vocab_size, bias=False)
        self.other_strand = _build_other_strand(config, config.head.complement)
        _initialize(self, len(config.layers))

    def forward(self, ids_BL: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits (B, L, V), unspecified from a row's length on."""
        logits_BLV = torch.as_tensor(self.lm_head(self.backbone.encode(ids_BL, lengths_B)))
        if self.other_strand is None:
            return logits_BLV
        others_BL = self.other_strand.of_tokens(ids_BL, lengths_B)
        others_BLV = self.lm_head(self.backbone.encode(others_BL, lengths_B))
        return logits_BLV + self.other_strand.of_logits(others_BLV, lengths_B)


WholeSequenceModel = Classifier | MaskedLanguageModel
Model = LanguageModel | SequenceRegressor | WholeSequenceModel


def build_model(config: ModelConfig) -> Model:
    """A new model with random weights."""
    match config.head:
        case LanguageModelHeadConfig():
            return LanguageModel(config)
        case ValuesHeadConfig():
            return SequenceRegressor(config)
        case ClassificationHeadConfig():
            return Classifier(config)
        case MaskedLanguageModelHeadConfig():
            return MaskedLanguageModel(config)


def _build_embedding(config: ModelConfig) -> nn.Module:
    if isinstance(config.embedding, NumberEmbeddingConfig):
        return NumberEmbedding(config.embedding, config.d_model)
    return TokenEmbedding(config.embedding, config.d_model)


def _build_other_strand(config: ModelConfig, complement: tuple[int, ...] | None) -> OtherStrand | None:
    if complement is None:
        return None
    if not isinstance(config.embedding, TokenEmbeddingConfig):
        raise InvalidRequest("only tokens have complements; leave complement out in a model of numbers")
    return OtherStrand(complement, config.embedding.vocab_size)


def _build_norm(config: NormConfig | None, width: int) -> nn.Module:
    return nn.Identity() if config is None else build_norm(config, width)


def _initialize(model: nn.Module, num_layers: int) -> None:
    """Small embeddings, and projections into the residual stream scaled by 1 / sqrt(layers) (GPT-2's scheme)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif name.endswith(("out_proj", "down_proj")) and isinstance(module, nn.Linear):
            with torch.no_grad():
                module.weight /= math.sqrt(num_layers)
