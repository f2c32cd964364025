"""DeltaNet and Gated DeltaNet as flash-linear-attention saves them (`model_type` "delta_net", "gated_deltanet")."""

from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format, of_type, required
from ssp_runtime.formats.foreign.fla.common import TIED, convolutions, named, norm_eps, short_convolution, with_mlps
from ssp_runtime.mixers.deltanet import DeltaNetConfig
from ssp_runtime.mixers.gated_deltanet import GatedDeltaNetConfig
from ssp_runtime.models.config import ModelConfig

NAMES = named(
    {
        "heads.conv1d.": "q_conv1d.",
        "heads.": "",
        "decay.coefficients.": "",
        "decay.": "",
        "out_proj.": "o_proj.",
        "": "",
    }
)
READS = {"*.mixer.heads.conv1d.weight": convolutions}


def _delta_net(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    required(config, "qk_activation", "silu", "silu")
    required(config, "qk_norm", "l2", "l2")
    required(config, "use_beta", True, True)
    mixer = DeltaNetConfig(
        num_heads=config["num_heads"],
        expand_k=config.get("expand_k", 1.0),
        expand_v=config.get("expand_v", 1.0),
        d_conv=short_convolution(checkpoint, otherwise=True),
        allow_negative_eigenvalues=config.get("allow_neg_eigval", False),
        output_gate=config.get("use_gate", False),
        norm_eps=norm_eps(checkpoint),
    )
    return with_mlps(checkpoint, (mixer,) * config["num_hidden_layers"])


def _gated_deltanet(checkpoint: Checkpoint) -> ModelConfig:
    config = checkpoint.config
    num_heads = config["num_heads"]
    if config.get("num_v_heads") is not None:
        required(config, "num_v_heads", num_heads, num_heads)
    d_key = num_heads * config.get("head_dim", 256)
    mixer = GatedDeltaNetConfig(
        num_heads=num_heads,
        expand_k=d_key / config["hidden_size"],
        expand_v=d_key * config.get("expand_v", 2.0) / config["hidden_size"],
        d_conv=short_convolution(checkpoint, otherwise=True),
        allow_negative_eigenvalues=config.get("allow_neg_eigval", False),
        output_gate=config.get("use_gate", True),
        norm_eps=norm_eps(checkpoint),
    )
    return with_mlps(checkpoint, (mixer,) * config["num_hidden_layers"])


FLA_DELTA_NET = Format(
    name="fla delta_net",
    fits=of_type("delta_net"),
    config=_delta_net,
    names=lambda _: NAMES,
    reads=READS,
    unused=TIED,
)
FLA_GATED_DELTANET = Format(
    name="fla gated_deltanet",
    fits=of_type("gated_deltanet"),
    config=_gated_deltanet,
    names=lambda _: NAMES,
    reads=READS,
    unused=TIED,
)
