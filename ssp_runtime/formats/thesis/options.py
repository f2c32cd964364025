"""The options of the thesis' code: which of them are supported, and what they mean."""

from collections.abc import Iterator, Mapping
from typing import Any

from ssp_runtime.errors import ArtifactError

# Options that do not change the trained function, and those read below. Any other must be unset.
IRRELEVANT = {"d_input", "d_output", "vocab_size", "dropout", "initializer_cfg", "fused_add_norm", "residual_in_fp32"}
UNDERSTOOD = {
    *("cls", "classification", "d_model", "d_state", "n_layer"),
    *("norm_epsilon", "rms_norm", "prenorm", "layernorm"),
}
# Options that are groups of options. Where a kernel started does not matter, nor what length it was made for.
GROUPS = {
    "s4_kwargs": {"mode", "bi", "init", "l_max"},
    "bi_s6": {"bi"},
    "pos_emb": {"loc", "b_c_dt_x", "theta", "seq_norm", "repeat", "learned_freq"},
    "bi_module": {"d_model_scale", "d_state_scale", "tie_linear_proj"},
}
TIME_INVARIANT, SELECTIVE = ("diag", "s4d", "dplr", "nplr", "s4"), "s6"


def check(meta: Mapping[str, Any]) -> None:
    """
    Raises:
        ArtifactError: one of them is not supported, by its name.
    """
    if class_of(meta) not in ("MambaModel", "S4ClassicModel"):
        raise ArtifactError(f"cls must be MambaModel or S4ClassicModel, not {meta.get('cls')!r}")
    if unknown := next(_unknown(meta), None):
        raise _unsupported(unknown)
    if mode_of(meta) not in (*TIME_INVARIANT, SELECTIVE):
        raise _unsupported(f"s4_kwargs.mode={mode_of(meta)!r}")
    _check_combination(meta)


def _unknown(meta: Mapping[str, Any]) -> Iterator[str]:
    for name, value in meta.items():
        if isinstance(value, Mapping) and name in GROUPS:
            yield from (f"{name}.{option}={x!r}" for option, x in value.items() if x and option not in GROUPS[name])
        elif value and name not in IRRELEVANT | UNDERSTOOD:
            yield f"{name}={value!r}"


def _check_combination(meta: Mapping[str, Any]) -> None:
    """At most one of their options for directions and positions, and where it belongs."""
    special = [name for name in ("bi_s6", "pos_emb", "bi_module") if meta.get(name)]
    special += [f"s4_kwargs.bi={direction_of(meta)!r}"] if direction_of(meta) else []
    if len(special) > 1:
        raise _unsupported(" together with ".join(special))
    of_s6, of_mamba = special in (["bi_s6"], ["pos_emb"]), special == ["bi_module"]
    if (of_s6 and mode_of(meta) != SELECTIVE) or (of_mamba and class_of(meta) != "MambaModel"):
        raise _unsupported(f"{special[0]} of {class_of(meta)} with mode={mode_of(meta)!r}")


def _unsupported(option: str) -> ArtifactError:
    return ArtifactError(f"the thesis' option {option} is not supported")


def class_of(meta: Mapping[str, Any]) -> str:
    return str(meta.get("cls")).removesuffix(" LM")


def mode_of(meta: Mapping[str, Any]) -> str:
    """Which state space; theirs defaults to S6 in the Mamba block and to S4 in the Simple block."""
    default = SELECTIVE if class_of(meta) == "MambaModel" else "dplr"
    return str(meta["s4_kwargs"].get("mode", "dplr")) if meta.get("s4_kwargs") else default


def direction_of(meta: Mapping[str, Any]) -> str:
    """The option `bi` of a state space that does not depend on the input; empty: causal."""
    return str((meta.get("s4_kwargs") or {}).get("bi") or "")
