"""Stacks of S4 and S4D as the example model of the published S4 code writes them: its minimal S4D, and its full layers
under the names of version 3 or 4.

Only tensors are recorded. Where the norms are, and how a diagonal state space is sampled, may be said in a
`config.json` beside them as `prenorm` and `disc`; else they are as in the example, behind the blocks and "zoh".
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Checkpoint
from ssp_runtime.formats.foreign.base import Format
from ssp_runtime.formats.names import Names
from ssp_runtime.formats.weights import fitting
from ssp_runtime.mixers.s4 import S4Coefficients, S4Config, recovered_C
from ssp_runtime.mixers.s4d import S4DConfig
from ssp_runtime.mixers.simple import SimpleConfig
from ssp_runtime.models.config import (
    BlockConfig,
    ClassificationHeadConfig,
    ModelConfig,
    NormConfig,
    NumberEmbeddingConfig,
)

BLOCK = "s4_layers.{}."
# Our parameters as each version calls them, by the last part of a name that tells the version.
VERSION_3 = {"inv_dt": "log_dt", "A_imag": "w_imag", "B": "B", "C": "C", "P": "P", "l_kernel": "L"}
VERSIONS: Mapping[str, Mapping[str, str]] = {
    "layer.kernel.inv_dt": {name: name for name in ("inv_dt", "A_real", "A_imag", "B", "C", "P", "l_kernel")},
    "kernel.kernel.log_w_real": {**VERSION_3, "A_real": "log_w_real"},
    "kernel.kernel.inv_w_real": {**VERSION_3, "A_real": "inv_w_real"},
    "kernel.log_A_real": {"inv_dt": "log_dt", "A_real": "log_A_real", "A_imag": "A_imag", "B": "B", "C": "C"},
}


def _mark(checkpoint: Checkpoint) -> str | None:
    return next((mark for mark in VERSIONS if BLOCK.format(0) + mark in checkpoint), None)


def _kernel(checkpoint: Checkpoint) -> tuple[str, Mapping[str, str]]:
    """Where its parameters are within a block, and their names there."""
    mark = _mark(checkpoint)
    assert mark is not None, "the format fits"
    return mark[: mark.rindex(".") + 1], VERSIONS[mark]


def _config(checkpoint: Checkpoint) -> ModelConfig:
    d_model, d_input = (checkpoint.size("encoder.weight", dim) for dim in (0, 1))
    within, names = _kernel(checkpoint)
    kernel = BLOCK.format(0) + within
    d_state = 2 * checkpoint.size(kernel + names["A_real"], 1)
    disc, prenorm = checkpoint.config.get("disc", "zoh"), checkpoint.config.get("prenorm", False)
    if disc not in ("zoh", "bilinear"):
        raise ArtifactError(f"disc is {disc!r} in its configuration; only 'zoh' and 'bilinear' can be served")
    is_dplr = kernel + "P" in checkpoint
    ssp = S4Config(d_state=d_state) if is_dplr else S4DConfig(d_state=d_state, discretization=disc)
    norm = NormConfig(kind="layer", eps=1e-5)
    block = BlockConfig(mixer=SimpleConfig(ssp=ssp), norm=norm, norm_position="pre" if prenorm else "post")
    num_layers = len({name.split(".")[1] for name in checkpoint.names() if name.startswith("s4_layers.")})
    return ModelConfig(
        d_model=d_model,
        embedding=NumberEmbeddingConfig(d_input=d_input),
        layers=(block,) * num_layers,
        head=ClassificationHeadConfig(num_classes=checkpoint.size("decoder.weight", 0)),
        final_norm=None,
    )


def _names(checkpoint: Checkpoint) -> Names:
    within, names = _kernel(checkpoint)
    parameters = {f"mixer.ssp.coefficients.{ours}": within + theirs for ours, theirs in names.items()}
    skip = "layer.D" if within.startswith("layer.") else "D"
    inside = {**parameters, "mixer.ssp.D": skip, "mixer.output_linear.": "output_linear.0.", "residual.": ""}
    return Names(outside={"backbone.embedding.": "encoder.", "decoder.": "decoder."}, block=BLOCK, inside=(inside,))


def _norm(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """These are in a list of their own."""
    _, number, _, parameter = name.split(".")
    theirs = f"norms.{number}.{parameter}"
    return fitting(theirs, checkpoint.read(theirs), wanted)


def _output(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Maybe a convolution of width 1."""
    given = checkpoint.read(name)
    return given.squeeze(-1) if given.ndim > wanted.ndim else given


def _step(checkpoint: Checkpoint, name: str, _: Tensor) -> Tensor:
    return checkpoint.read(name).reshape(-1, 1)


def _for_all(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """(D, N, ...) of (n_ssm, N, ...), maybe with a dimension of size 1 before: features take turns in sharing them."""
    given = checkpoint.read(name)
    given = given.squeeze(0) if given.ndim > wanted.ndim else given
    if given.ndim != wanted.ndim or not len(given) or len(wanted) % len(given):
        return given
    return given.repeat(len(wanted) // len(given), *(1,) * (given.ndim - 1))


def _imaginary(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:
    """Only version 4 has their negative, as we do."""
    given = _for_all(checkpoint, name, wanted)
    return given if "layer.kernel" in name else -given


def _B(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:  # noqa: N802  # the field's name
    """The minimal S4D has none, which is as good as ones."""
    if _mark(checkpoint) != "kernel.log_A_real":
        return _for_all(checkpoint, name, wanted)
    return torch.tensor([1.0, 0.0]).expand_as(wanted)


def _C(checkpoint: Checkpoint, name: str, wanted: Tensor) -> Tensor:  # noqa: N802  # the field's name
    """That of S4 is held multiplied by what a kernel of its length leaves out."""
    kernel, names = name.removesuffix("C"), _kernel(checkpoint)[1]
    if kernel + "P" not in checkpoint:
        return _for_all(checkpoint, name, wanted)
    coefficients = S4Coefficients(len(wanted), S4Config(d_state=2 * wanted.shape[1]))
    for ours, parameter in coefficients.named_parameters():
        read = _for_all if ours == "C" else COEFFICIENTS[ours]
        theirs = kernel + names[ours]
        parameter.data.copy_(fitting(theirs, read(checkpoint, theirs, parameter), parameter))
    return recovered_C(coefficients, int(checkpoint.read(kernel + names["l_kernel"])))


COEFFICIENTS = {"inv_dt": _step, "A_real": _for_all, "A_imag": _imaginary, "B": _B, "C": _C, "P": _for_all}

S4 = Format(
    name="S4",
    fits=lambda checkpoint: "encoder.weight" in checkpoint and _mark(checkpoint) is not None,
    config=_config,
    names=_names,
    reads={
        "*.residual.norm.*": _norm,
        "*.output_linear.weight": _output,
        **{f"*.coefficients.{name}": read for name, read in COEFFICIENTS.items()},
    },
)
