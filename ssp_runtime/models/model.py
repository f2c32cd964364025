"""The one backbone, and the two models on it: `LanguageModel`, which can be folded, and `Classifier`."""

import math

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
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
    TokenEmbeddingConfig,
    from_json,
    to_json,
)
from ssp_runtime.run import ParallelRun, Run
from ssp_runtime.state import State, initial_state, prefixed


class TokenEmbedding(nn.Embedding):
    def __init__(self, config: TokenEmbeddingConfig, d_model: int) -> None:
        super().__init__(config.vocab_size, d_model)
        self.scale = config.scale

    def forward(self, ids: Tensor) -> Tensor:
        x = super().forward(ids)
        return x if self.scale == 1 else x * self.scale


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
            raise InvalidRequest("a language model needs causal layers; bidirectional ones can only classify")
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


class LanguageModel(Fold):
    """Scores of the next token after each token: a fold over token ids."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config.head, LanguageModelHeadConfig) or not isinstance(
            config.embedding, TokenEmbeddingConfig
        ):
            raise InvalidRequest("a language model embeds tokens and has a language_model head")
        self.config = config
        self._soft_cap = config.head.soft_cap
        self.backbone = CausalBackbone(config)
        self.lm_head = nn.Linear(config.d_model, config.embedding.vocab_size, bias=config.head.bias)
        _initialize(self, len(config.layers))
        if config.head.tied:
            self.lm_head.weight = self.backbone.embedding.weight  # type: ignore[assignment]  # of nn.Embedding
        self.state_spec = self.backbone.state_spec

    def compute(self, x: Tensor, run: Run) -> Tensor:
        """Logits (..., V) of token ids (...)."""
        return soft_capped(self.lm_head(self.backbone.compute(x, run)), self._soft_cap)

    def fold(self, ids_BL: Tensor, state: State, *, lengths_B: Tensor | None = None) -> State:
        """The state after the tokens, without any logits."""
        run = ParallelRun(state, lengths_B)
        self.backbone.compute(masked(ids_BL, lengths_B), run)
        return run.new

    def initial_state(self, batch: int) -> State:
        weight = self.lm_head.weight
        return initial_state(self.state_spec, batch, weight.dtype, weight.device)


class Classifier(nn.Module):
    """Scores over classes of whole sequences, from the mean of the hidden states over each row's own length."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if not isinstance(config.head, ClassificationHeadConfig):
            raise InvalidRequest("a classifier has a classification head")
        self.config = config
        self.backbone = Backbone(config)
        self.decoder = nn.Linear(config.d_model, config.head.num_classes)
        _initialize(self, len(config.layers))

    def forward(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Logits (B, C) of inputs (B, L) or (B, L, d_input); every row has at least one token."""
        hidden_BLD = masked(self.backbone.encode(inputs, lengths_B), lengths_B)
        count_B = hidden_BLD.shape[1] if lengths_B is None else lengths_B[:, None]
        return torch.as_tensor(self.decoder(hidden_BLD.sum(1) / count_B))


Model = LanguageModel | Classifier


def build_model(config: ModelConfig) -> Model:
    """A new model with random weights."""
    return LanguageModel(config) if isinstance(config.head, LanguageModelHeadConfig) else Classifier(config)


def _build_embedding(config: ModelConfig) -> nn.Module:
    if isinstance(config.embedding, NumberEmbeddingConfig):
        return nn.Linear(config.embedding.d_input, config.d_model)
    return TokenEmbedding(config.embedding, config.d_model)


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
