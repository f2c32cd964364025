"""A fold whose state is a hash chain of its tokens: one that is lost, doubled, swapped or stale shows, bit for bit.

`fold` and `Chain` say the same in plain Python: what the model must have computed after any tokens.
"""

from collections.abc import Sequence as Ids
from functools import cache

import torch
from torch import Tensor, nn

from ssp_runtime.engine.sampling import Draw, sample
from ssp_runtime.engine.sampling_params import SamplingParams
from ssp_runtime.formats.artifact import Artifact, Description
from ssp_runtime.mixers.mamba import MambaConfig
from ssp_runtime.models.config import BlockConfig, LanguageModelHeadConfig, ModelConfig, TokenEmbeddingConfig
from ssp_runtime.models.model import CausalModel
from ssp_runtime.run import Run
from ssp_runtime.state import State, TensorSpec
from ssp_runtime.tokenizers import ByteTokenizer

BOS = 0
VOCAB = 256
_LIMBS, _LIMB_BITS = 3, 16  # of a hash, each a whole number that float32 holds exactly
_BITS = _LIMBS * _LIMB_BITS
_FACTOR = 0x9E3779B97F4A7C15
_SHIFT = 29
_STATE = ("limbs", "count")


def mixed(chain: int, token: int) -> int:
    """The chain after one more token."""
    product = (chain ^ (token + 1)) * _FACTOR % (1 << 64)
    return (product ^ (product >> _SHIFT)) % (1 << _BITS)


@cache
def fold(tokens: tuple[int, ...]) -> int:
    before: int = fold(tokens[:-1]) if tokens else 0
    return mixed(before, tokens[-1]) if tokens else 0


def logits(tokens: Ids[int]) -> Tensor:
    """What the model says after these tokens: (V)."""
    return _logits(torch.tensor(fold(tuple(tokens))))


def continued(tokens: Ids[int], count: int, params: SamplingParams) -> list[int]:
    """The tokens that the model must generate after these."""
    made: list[int] = []
    for _ in range(count):
        draw = Draw(params=params, position=len(tokens) + len(made))
        made += sample(logits([*tokens, *made])[None], [draw])
    return made


def scores(tokens: Ids[int], continuation: Ids[int]) -> list[float]:
    """Logarithms of the probabilities of the continuation's tokens."""
    rows = [logits([*tokens, *continuation[:i]]).double().log_softmax(-1) for i in range(len(continuation))]
    return [float(row[token]) for row, token in zip(rows, continuation, strict=True)]


class HashChain(CausalModel):
    """Logits of any chain are exact in float32, the best two more than 2 apart."""

    def __init__(self) -> None:
        nn.Module.__init__(self)  # it has no backbone
        self.state_spec = {
            "limbs": TensorSpec(shape=(_LIMBS,), kind="accumulator"),
            "count": TensorSpec(shape=(1,), kind="index"),
        }
        self.nothing = nn.Parameter(torch.zeros(1))

    def compute(self, x: Tensor, run: Run) -> Tensor:
        return self.read(run(_Operator(), x, state=_STATE))

    def read(self, hidden: Tensor) -> Tensor:
        return _logits(hidden)

    def fold(self, inputs: Tensor, state: State, *, lengths_B: Tensor | None = None) -> State:
        return self.forward(inputs, state, lengths_B=lengths_B)[1]


class _Operator:
    def forward(
        self, ids_BL: Tensor, state: tuple[Tensor, Tensor], lengths_B: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert lengths_B is None
        chains = []
        for ids_B in ids_BL.unbind(1):
            chain_B, state = self.step(ids_B, state, None)
            chains.append(chain_B)
        return torch.stack(chains, 1), state

    def step(
        self, ids_B: Tensor, state: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        limbs_BK, count_B1 = state
        chain_B = sum(limbs_BK[:, k].long() << (k * _LIMB_BITS) for k in range(_LIMBS))
        product_B = (chain_B ^ (ids_B + 1)) * (_FACTOR - 2**64)
        chain_B = (product_B ^ ((product_B >> _SHIFT) & (2 ** (64 - _SHIFT) - 1))) & (2**_BITS - 1)
        limbs = [(chain_B >> (k * _LIMB_BITS)) & (2**_LIMB_BITS - 1) for k in range(_LIMBS)]
        new = torch.stack(limbs, -1).float(), count_B1 + 1
        if out is None:
            return chain_B, new
        for there, value in zip(out, new, strict=True):
            there.copy_(value)
        return chain_B, out


def _logits(chain: Tensor) -> Tensor:
    """(..., V) of chains (...)."""
    ids = torch.arange(VOCAB)
    noise = ((chain[..., None] * (2 * ids + 1)) >> 20) & 0x3FF
    best = (chain[..., None] >> 16) % VOCAB == ids
    return torch.where(best, 6.5, noise / 256).float()


def artifact() -> Artifact:
    config = ModelConfig(
        d_model=32,
        embedding=TokenEmbeddingConfig(vocab_size=VOCAB),
        layers=(BlockConfig(mixer=MambaConfig()),),
        head=LanguageModelHeadConfig(tied=False),
    )
    description = Description(model=config, form="recurrent", tokenizer=ByteTokenizer())
    return Artifact(description=description, model=HashChain(), fingerprint="hash chain")  # type: ignore[arg-type]
