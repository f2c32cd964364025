"""Models from checkpoints of other programs: the table of formats, and how one is loaded."""

from pathlib import Path

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.checkpoint import Checkpoint, open_checkpoint
from ssp_runtime.formats.foreign.base import Format, assemble
from ssp_runtime.formats.foreign.caduceus import CADUCEUS_PH, CADUCEUS_PS
from ssp_runtime.formats.foreign.fla import FLA_FORMATS
from ssp_runtime.formats.foreign.recurrent_gemma import RECURRENT_GEMMA
from ssp_runtime.formats.foreign.rwkv import RWKV, rwkv
from ssp_runtime.formats.foreign.s4 import S4
from ssp_runtime.formats.foreign.state_spaces import STATE_SPACES
from ssp_runtime.formats.foreign.transformers_mamba import TRANSFORMERS_MAMBA
from ssp_runtime.formats.foreign.transformers_mamba2 import TRANSFORMERS_MAMBA2
from ssp_runtime.formats.foreign.transformers_recurrent_gemma import TRANSFORMERS_RECURRENT_GEMMA
from ssp_runtime.formats.foreign.transformers_rwkv import TRANSFORMERS_RWKV
from ssp_runtime.formats.foreign.transformers_xlstm import TRANSFORMERS_XLSTM

# The first that fits counts.
FORMATS: tuple[Format, ...] = (
    *FLA_FORMATS,
    CADUCEUS_PH,
    CADUCEUS_PS,
    S4,
    TRANSFORMERS_MAMBA,
    TRANSFORMERS_MAMBA2,
    TRANSFORMERS_RECURRENT_GEMMA,
    TRANSFORMERS_RWKV,
    TRANSFORMERS_XLSTM,
    STATE_SPACES,
    RECURRENT_GEMMA,
    RWKV,
)


def load_foreign(path: Path, group_norm_eps: float | None = None) -> Artifact:
    """The model of a folder (`config.json` and weights) or of a `.pth` file, in training form. `group_norm_eps` is a
    setting that RWKV's files do not hold, see `rwkv`.

    Raises:
        ArtifactError: no format fits, or the checkpoint is not what it says; the message names the tensor at fault.
    """
    with open_checkpoint(path) as checkpoint:
        how = find_format(checkpoint)
        if group_norm_eps is not None:
            if how is not RWKV:
                raise ArtifactError(f"--group-norm-eps is a setting of RWKV; {path} is of the format {how.name}")
            how = rwkv(group_norm_eps)
        return assemble(checkpoint, how)


def find_format(checkpoint: Checkpoint) -> Format:
    for each in FORMATS:
        if each.fits(checkpoint):
            return each
    known = ", ".join(each.name for each in FORMATS)
    raise ArtifactError(f"{checkpoint.path} is of no format that can be read; those are: {known}")
