"""RecurrentGemma as DeepMind's own code saves it: from torch, or from Flax, the names in its tree joined by dots."""

from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format
from ssp_runtime.formats.foreign.transformers_recurrent_gemma import model_config, norm_weight
from ssp_runtime.formats.names import Names
from ssp_runtime.mixers.griffin import GriffinConfig
from ssp_runtime.mixers.rg_lru import RGLRUConfig
from ssp_runtime.mixers.window_attention import WindowAttentionConfig
from ssp_runtime.models.config import LanguageModelHeadConfig, ModelConfig

RECURRENT = {
    "residual.norm.weight": "temporal_pre_norm.scale",
    "mixer.out_proj.": "recurrent_block.linear_out.",
    "mixer.conv1d.weight": "recurrent_block.conv_1d.w",
    "mixer.conv1d.bias": "recurrent_block.conv_1d.b",
    "mixer.rg_lru.coefficients.Lambda": "recurrent_block.rg_lru.a_param",
    "mixer.rg_lru.input_gate.weight": "recurrent_block.rg_lru.input_gate.w",
    "mixer.rg_lru.input_gate.bias": "recurrent_block.rg_lru.input_gate.b",
    "mixer.rg_lru.recurrent_gate.weight": "recurrent_block.rg_lru.a_gate.w",
    "mixer.rg_lru.recurrent_gate.bias": "recurrent_block.rg_lru.a_gate.b",
    "mixer.linear_x.": "recurrent_block.linear_x.",
    "mixer.linear_y.": "recurrent_block.linear_y.",
}
ATTENTION = {
    "residual.norm.weight": "temporal_pre_norm.scale",
    "mixer.q_proj.": "attention_block.proj_q.",
    "mixer.k_proj.": "attention_block.proj_k.",
    "mixer.v_proj.": "attention_block.proj_v.",
    "mixer.out_proj.": "attention_block.proj_final.",
}
CHANNEL = {
    "residual.norm.weight": "channel_pre_norm.scale",
    "mixer.gate_proj.weight": "mlp_block.ffw_up.w",
    "mixer.gate_proj.bias": "mlp_block.ffw_up.b",
    "mixer.up_proj.weight": "mlp_block.ffw_up.w",
    "mixer.up_proj.bias": "mlp_block.ffw_up.b",
    "mixer.down_proj.": "mlp_block.ffw_down.",
}


def recurrent_gemma(attention_window_size: int = 2048, logits_soft_cap: float | None = 30.0) -> Format:
    """The two settings, by their names there, are not recorded in checkpoints; all published models have these."""
    return Format(
        name="RecurrentGemma",
        fits=lambda checkpoint: f"{_root(checkpoint)}embedder.input_embedding" in checkpoint,
        config=partial(_config, window=attention_window_size + 1, soft_cap=logits_soft_cap),
        names=_names,
        reads={
            "*norm*.weight": norm_weight,
            "*.conv1d.weight": lambda checkpoint, name, _: checkpoint.read(name).mT[:, None],
            "*.gate_proj.*": partial(_half, which=0),
            "*.up_proj.*": partial(_half, which=1),
            "*.linear_?.weight": _projection,
            "*_proj.weight": _projection,
        },
    )


def _root(checkpoint: Checkpoint) -> str:
    return "params." if "params.embedder.input_embedding" in checkpoint else ""


def _names(checkpoint: Checkpoint) -> Names:
    root, tables = _root(checkpoint), list(_temporal_tables(checkpoint))
    return Names(
        outside={
            "backbone.embedding.weight": f"{root}embedder.input_embedding",
            "backbone.norm_f.weight": f"{root}final_norm.scale",
        },
        block=f"{root}blocks.{{}}.",
        inside=tuple(_in_flax(each) if root else each for table in tables for each in (table, CHANNEL)),
        blocks=len(tables),
    )


def _in_flax(table: Mapping[str, str]) -> Mapping[str, str]:
    """Of projections, whose names go on, the weights are called kernels."""
    kernels = {f"{ours}weight": f"{theirs}kernel" for ours, theirs in table.items() if ours.endswith(".")}
    return {**kernels, **table}


def _temporal_tables(checkpoint: Checkpoint) -> Iterator[Mapping[str, str]]:
    """Of each block."""
    block, i = f"{_root(checkpoint)}blocks.", 0
    while f"{block}{i}.channel_pre_norm.scale" in checkpoint:
        yield RECURRENT if f"{block}{i}.recurrent_block.rg_lru.a_param" in checkpoint else ATTENTION
        i += 1


def _config(checkpoint: Checkpoint, *, window: int, soft_cap: float | None) -> ModelConfig:
    root = _root(checkpoint)
    vocab_size, d_model = (checkpoint.size(f"{root}embedder.input_embedding", dim) for dim in (0, 1))
    mixers = [
        _recurrent(checkpoint, f"{root}blocks.{i}.recurrent_block.")
        if table is RECURRENT
        else _attention(checkpoint, f"{root}blocks.{i}.attention_block.", d_model, window)
        for i, table in enumerate(_temporal_tables(checkpoint))
    ]
    return model_config(
        mixers,
        vocab_size=vocab_size,
        d_model=d_model,
        d_hidden=checkpoint.size(f"{root}blocks.0.mlp_block.ffw_up.w", 2),
        eps=1e-6,
        head=LanguageModelHeadConfig(soft_cap=soft_cap),
    )


def _recurrent(checkpoint: Checkpoint, block: str) -> GriffinConfig:
    return GriffinConfig(
        lru_width=checkpoint.size(f"{block}rg_lru.a_param", 0),
        d_conv=checkpoint.size(f"{block}conv_1d.w", 0),
        rg_lru=RGLRUConfig(num_heads=checkpoint.size(f"{block}rg_lru.a_gate.w", 0)),
    )


def _attention(checkpoint: Checkpoint, block: str, d_model: int, window: int) -> WindowAttentionConfig:
    flax = f"{block}proj_k.kernel"
    head_dim = checkpoint.size(flax, 1) if flax in checkpoint else checkpoint.size(f"{block}proj_k.weight", 0)
    return WindowAttentionConfig(num_heads=d_model // head_dim, num_kv_heads=1, window=window)


def _half(checkpoint: Checkpoint, name: str, wanted: Tensor, *, which: int) -> Tensor:
    """Gates and inputs of the MLP lie one behind the other: weights (2, D, H), biases (2, 1, 1, H)."""
    half = checkpoint.read(name)[which]
    return half.mT if wanted.ndim == 2 else half


def _projection(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    """Kernels lead from inputs to outputs."""
    weight = checkpoint.read(name)
    return weight.mT if name.endswith("kernel") else weight


RECURRENT_GEMMA = recurrent_gemma()
