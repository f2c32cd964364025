"""The table of operators."""

from typing import Any

from ssp_kernels import (
    causal_conv1d,
    delta_rule,
    dplr_ssm,
    linear_attention,
    linear_scan,
    lti_ssm,
    nonlinear_loop,
    selective_scan,
    stabilizer,
    window_attention,
    wkv,
)
from ssp_kernels.registry import Operator

OPERATORS: tuple[Operator[Any], ...] = (
    causal_conv1d.OPERATOR,
    delta_rule.OPERATOR,
    dplr_ssm.OPERATOR,
    linear_attention.OPERATOR,
    linear_scan.OPERATOR,
    lti_ssm.OPERATOR,
    nonlinear_loop.OPERATOR,
    selective_scan.OPERATOR,
    stabilizer.OPERATOR,
    window_attention.OPERATOR,
    wkv.OPERATOR,
)
