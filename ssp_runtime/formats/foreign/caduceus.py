"""Caduceus-Ph and -PS (Schiff et al., 2024, "Caduceus: Bi-Directional Equivariant Long-Range DNA Sequence Modeling"),
as their published code writes them (`model_type` "caduceus"): masked language models and classifiers.

In -PS each block reads the other strand's features, reversed. Its weights are rearranged here, once, so that each
strand stays by itself: in every other block features change their order and the two directions their place.
"""

import math
from functools import partial

from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, required
from ssp_runtime.formats.names import Names
from ssp_runtime.formats.vocabulary import vocabulary
from ssp_runtime.mixers.bidirectional import BidirectionalMambaConfig
from ssp_runtime.mixers.s6 import S6Config
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    HeadConfig,
    MaskedLanguageModelHeadConfig,
    ModelConfig,
    NormConfig,
    TokenEmbeddingConfig,
)
from ssp_runtime.tokenizers import HyenaDNATokenizer, TokenIds, Tokenizer

# What does not change the function: how parameters start, and which program computes it.
OF_TRAINING = ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path")
SCORE = "score.weight"
EMBEDDING = "caduceus.backbone.embeddings.word_embeddings."
OF_LETTERS = {7: 10, 8: 9, 9: 8, 10: 7, 11: 11}  # complements of A, C, G, T, N


def _config(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    required(config, "bidirectional", True, True)
    required(config, "bidirectional_strategy", "add", "add")
    required(config, "bidirectional_weight_tie", True, True)
    if _is_ps(checkpoint):
        required(config, "fused_add_norm", True, True)
    norm = NormConfig(kind="rms" if config.get("rms_norm", True) else "layer", eps=config.get("norm_epsilon", 1e-5))
    vocab_size = checkpoint.size(_embedding(checkpoint) + "weight", 0)
    return ModelConfig(
        d_model=config["d_model"],
        embedding=TokenEmbeddingConfig(vocab_size=vocab_size),
        layers=(BlockConfig(mixer=_mixer(checkpoint), norm=norm),) * config["n_layer"],
        head=_head(checkpoint, vocab_size),
        final_norm=norm,
    )


def _mixer(checkpoint: Checkpoint) -> BidirectionalMambaConfig:
    settings = checkpoint.config.get("ssm_cfg") or {}
    known = ("d_state", "d_conv", "expand", "dt_rank", "bias", "conv_bias", *OF_TRAINING)
    if unknown := next((name for name in settings if name not in known), None):
        raise ArtifactError(f"ssm_cfg.{unknown} is {settings[unknown]!r} in its configuration; it cannot be served")
    required(settings, "bias", False, False)
    required(settings, "conv_bias", True, True)
    rank = settings.get("dt_rank", "auto")
    return BidirectionalMambaConfig(
        ssp=S6Config(
            d_state=settings.get("d_state", 16),
            dt_rank=math.ceil(checkpoint.config["d_model"] / 16) if rank == "auto" else rank,
        ),
        expand=settings.get("expand", 2),
        d_conv=settings.get("d_conv", 4),
    )


def _head(checkpoint: Checkpoint, vocab_size: int) -> HeadConfig:
    """A classifier of -Ph, too, reads both strands where the complements are known: its authors' evaluation."""
    if SCORE not in checkpoint:
        return MaskedLanguageModelHeadConfig(
            complement=_complement(checkpoint, vocab_size) if _is_ps(checkpoint) else None
        )
    complement = _complement(checkpoint, vocab_size) if checkpoint.config.get("complement_map") else None
    return ClassificationHeadConfig(num_classes=checkpoint.size(SCORE, 0), bias=False, complement=complement)


def _complement(checkpoint: Checkpoint, vocab_size: int) -> tuple[int, ...]:
    """Tokens that only pad the vocabulary are their own."""
    given = checkpoint.config["complement_map"]
    return tuple(int(given.get(str(i), i)) for i in range(vocab_size))


def _is_ps(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.config.get("rcps", False))


def _embedding(checkpoint: Checkpoint) -> str:
    return EMBEDDING + ("embedding." if _is_ps(checkpoint) else "")


def _labels(checkpoint: Checkpoint) -> tuple[str, ...]:
    names = checkpoint.config.get("id2label") or {}
    if SCORE not in checkpoint or len(names) != checkpoint.size(SCORE, 0):
        return ()
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """The published code has one vocabulary, and no file of it; that of a checkpoint with other complements is not
    known."""
    size = checkpoint.size(_embedding(checkpoint) + "weight", 0)
    found, letters = vocabulary(checkpoint, TokenEmbeddingConfig(vocab_size=size)), HyenaDNATokenizer()
    pairs = checkpoint.config.get("complement_map") or {str(token): other for token, other in OF_LETTERS.items()}
    is_usual = all(pairs.get(str(token)) == other for token, other in OF_LETTERS.items())
    return letters if isinstance(found, TokenIds) and is_usual and size >= letters.vocab_size else found


def _names(checkpoint: Checkpoint) -> Names:
    mixer = "mixer.submodule." if _is_ps(checkpoint) else "mixer."
    inside = {"residual.norm.": "norm."}
    for ours, theirs in (("forward_branch", "mamba_fwd."), ("backward_branch", "mamba_rev.")):
        for part in ("ssp.coefficients.", "ssp.", ""):
            inside[f"mixer.{ours}.{part}"] = f"{mixer}{theirs}"
    return Names(
        outside={
            "backbone.embedding.": _embedding(checkpoint),
            "backbone.norm_f.": "caduceus.backbone.norm_f.",
            "lm_head.": "lm_head.lm_head." if _is_ps(checkpoint) else "lm_head.",
            "decoder.": "score.",
        },
        block="caduceus.backbone.layers.{}.",
        inside=({**inside, "mixer.": f"{mixer}mamba_fwd."},),
    )


def _lm_head(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """Where it is tied to the embedding, files may leave it out."""
    tied = name.startswith("lm_head") and name not in checkpoint
    return checkpoint.read(_embedding(checkpoint) + "weight" if tied else name)


def _turned(dim: int, checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    return checkpoint.read(name).flip(dim)


def _other_branch(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    other = name.replace("mamba_fwd", "mamba_rev") if "mamba_fwd" in name else name.replace("mamba_rev", "mamba_fwd")
    return checkpoint.read(other)


def _after_the_blocks(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """An odd number of blocks leaves the strands in each other's place."""
    given = _lm_head(checkpoint, name, wanted)
    if checkpoint.config["n_layer"] % 2 == 0:
        return given
    if name.startswith("lm_head"):
        given = given[list(_complement(checkpoint, len(given)))]
    return given.flip(-1)


# The copies of what the two directions share, and the table of complements, which is a setting, too.
UNUSED = ("*.mamba_rev.in_proj.weight", "*.mamba_rev.out_proj.weight", "*.complement_map")
FIRST_OF_TWO = "backbone.layers.*[02468]"

CADUCEUS_PH = Format(
    name="Caduceus-Ph",
    fits=lambda checkpoint: checkpoint.config.get("model_type") == "caduceus" and not _is_ps(checkpoint),
    config=_config,
    names=_names,
    reads={"lm_head.weight": _lm_head},
    unused=UNUSED,
    tokenizer=_tokenizer,
    labels=_labels,
)
CADUCEUS_PS = Format(
    name="Caduceus-PS",
    fits=lambda checkpoint: checkpoint.config.get("model_type") == "caduceus" and _is_ps(checkpoint),
    config=_config,
    names=_names,
    reads={
        f"{FIRST_OF_TWO}.residual.norm.*": partial(_turned, 0),
        f"{FIRST_OF_TWO}.mixer.in_proj.weight": partial(_turned, 1),
        f"{FIRST_OF_TWO}.mixer.out_proj.weight": partial(_turned, 0),
        f"{FIRST_OF_TWO}.mixer.*_branch.*": _other_branch,
        "backbone.norm_f.*": _after_the_blocks,
        "lm_head.weight": _after_the_blocks,
        "decoder.weight": _after_the_blocks,
    },
    unused=UNUSED,
    tokenizer=_tokenizer,
    labels=_labels,
)
