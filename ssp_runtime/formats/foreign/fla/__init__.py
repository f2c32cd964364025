"""Model folders of flash-linear-attention: `config.json` and safetensors under its names."""

from ssp_runtime.formats.foreign.base import Format
from ssp_runtime.formats.foreign.fla.delta_net import FLA_DELTA_NET, FLA_GATED_DELTANET
from ssp_runtime.formats.foreign.fla.gla import FLA_GLA
from ssp_runtime.formats.foreign.fla.hgrn import FLA_HGRN, FLA_HGRN2
from ssp_runtime.formats.foreign.fla.linear_attention import FLA_LINEAR_ATTENTION
from ssp_runtime.formats.foreign.fla.mamba import FLA_MAMBA, FLA_MAMBA2
from ssp_runtime.formats.foreign.fla.retnet import FLA_RETNET
from ssp_runtime.formats.foreign.fla.rwkv6 import FLA_RWKV6
from ssp_runtime.formats.foreign.fla.rwkv7 import FLA_RWKV7

FLA_FORMATS: tuple[Format, ...] = (
    FLA_GLA,
    FLA_RETNET,
    FLA_HGRN,
    FLA_HGRN2,
    FLA_RWKV6,
    FLA_RWKV7,
    FLA_DELTA_NET,
    FLA_GATED_DELTANET,
    FLA_LINEAR_ATTENTION,
    FLA_MAMBA,
    FLA_MAMBA2,
)
