"""The table of operators."""

from typing import Any

from ssp_kernels import causal_conv1d, linear_attention, linear_scan, lti_ssm, selective_scan, stabilizer
from ssp_kernels.registry import Operator

OPERATORS: tuple[Operator[Any], ...] = (
    causal_conv1d.OPERATOR,
    linear_attention.OPERATOR,
    linear_scan.OPERATOR,
    lti_ssm.OPERATOR,
    selective_scan.OPERATOR,
    stabilizer.OPERATOR,
)
