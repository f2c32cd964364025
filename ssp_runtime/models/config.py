"""What a model is made of, as data. `ModelConfig` reads from and writes to plain JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import Field

from ssp_runtime.errors import InvalidRequest, suggestion
from ssp_runtime.mixers.base import AnyMixerConfig, Positive, PositiveReal, Probability, validated


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    kind: Literal["layer", "rms"] = "rms"
    eps: PositiveReal = 1e-5


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """A mixer with its norm and residual: `x + mixer(norm(x))` (pre), or `norm(x + mixer(x))` (post)."""

    mixer: AnyMixerConfig
    norm: NormConfig = field(default_factory=NormConfig)
    norm_position: Literal["pre", "post"] = "pre"
    dropout: Probability = 0.0


@dataclass(frozen=True, kw_only=True)
class TokenEmbeddingConfig:
    """A vector of the table for each token, times `scale` (RecurrentGemma: sqrt(d_model), rounded to bfloat16)."""

    kind: Literal["tokens"] = "tokens"
    vocab_size: Positive
    scale: PositiveReal = 1.0


@dataclass(frozen=True, kw_only=True)
class NumberEmbeddingConfig:
    """Vectors of `d_input` numbers."""

    kind: Literal["numbers"] = "numbers"
    d_input: Positive


@dataclass(frozen=True, kw_only=True)
class LanguageModelHeadConfig:
    """Scores over the vocabulary at every token. `tied` shares the embedding's weights; `soft_cap` is a magnitude that
    scores approach but do not exceed."""

    kind: Literal["language_model"] = "language_model"
    tied: bool = True
    bias: bool = False
    soft_cap: PositiveReal | None = None


@dataclass(frozen=True, kw_only=True)
class MaskedLanguageModelHeadConfig:
    """Scores over the vocabulary at every token, which may depend on those after it. With a `complement` of each token
    they are the sum of those of a sequence and of its reverse complement."""

    kind: Literal["masked_language_model"] = "masked_language_model"
    complement: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassificationHeadConfig:
    """Scores over classes from the mean over the tokens. With a `complement` of each token they are the mean of those
    of a sequence and of its reverse complement."""

    kind: Literal["classification"] = "classification"
    num_classes: Positive
    bias: bool = True
    complement: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ValuesHeadConfig:
    """Vectors of `d_output` numbers at every step."""

    kind: Literal["values"] = "values"
    d_output: Positive


EmbeddingConfig = TokenEmbeddingConfig | NumberEmbeddingConfig
HeadConfig = LanguageModelHeadConfig | MaskedLanguageModelHeadConfig | ClassificationHeadConfig | ValuesHeadConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    d_model: Positive
    embedding: Annotated[EmbeddingConfig, Field(discriminator="kind")]
    layers: Annotated[tuple[BlockConfig, ...], Field(min_length=1)]
    head: Annotated[HeadConfig, Field(discriminator="kind")]
    # A norm of the embeddings, before the first block (RWKV).
    embedding_norm: NormConfig | None = None
    # The norm before the head; None for post-norm models, whose last block ends in one.
    final_norm: NormConfig | None = field(default_factory=NormConfig)

    @property
    def architecture(self) -> str:
        """The layers in words, what repeats counted: "6 x mamba(s6)", "12 x (gla, gated_mlp)"."""
        names = [_describe(block.mixer) for block in self.layers]
        if period := _period(names):
            return f"{len(names) // period} x ({', '.join(names[:period])})"
        return ", ".join(f"{len(list(run))} x {name}" for name, run in groupby(names))


def _period(names: list[str]) -> int | None:
    """The length of a pattern of several layers that is all there is, again and again."""
    if len(set(names)) < 2:
        return None
    divisors = (period for period in range(2, len(names)) if len(names) % period == 0)
    return next((period for period in divisors if names == names[:period] * (len(names) // period)), None)


def _describe(mixer: AnyMixerConfig) -> str:
    inner = getattr(mixer, "ssp", None)
    return f"{mixer.kind}({inner.kind})" if inner else mixer.kind


def to_json(config: ModelConfig) -> dict[str, Any]:
    return asdict(config)


def from_json(data: Mapping[str, Any]) -> ModelConfig:
    """Raises `InvalidRequest` that names the field at fault."""
    try:
        config = validated(ModelConfig, data)
    except ValueError as error:
        raise InvalidRequest(f"the model's configuration is wrong: {error}") from error
    if unknown := next(_unknown_fields(data, to_json(config)), None):
        raise InvalidRequest(f"the model's configuration is wrong: {unknown}")
    return config


def _unknown_fields(given: Any, known: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """What is in `given` but not in `known`, the configuration made of it: where, and what it may have meant."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if name in known:
                yield from _unknown_fields(value, known[name], (*path, name))
            else:
                yield f"{'.'.join((*path, str(name)))}: there is no such field{suggestion(str(name), known)}"
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for i, value in enumerate(given):
            yield from _unknown_fields(value, known[i], (*path, str(i)))
