"""Equal bits, alone and in any crowd: how many rows a step must have for that.

Matrix products over few rows and over many differ in their last bits, for different code computes them. Steps whose row
counts are multiples of a quantum may agree; whether they do is tried with the model itself, at every such count.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ssp_runtime.engine.state_pool import StatePool
from ssp_runtime.models.config import NumberEmbeddingConfig
from ssp_runtime.models.model import CausalModel

_STEPS = 3  # of each trial


class Unfit(Exception):
    """Rows influence each other, whatever their number."""


@torch.inference_mode()
def quantum(model: CausalModel, num_slots: int, threads: int = 1) -> int:
    """The smallest number of rows, for up to `num_slots` sequences, whose multiples all give one row the same bits,
    wherever it lies and whoever is with it. Raises `Unfit` if there is none.

    `threads` is how many the model will run on, for they share out the rows.
    """
    with _running_on(threads):
        for candidate in _candidates(num_slots):
            if _agrees(model, candidate, num_slots):
                return candidate
    raise Unfit("equal rows of one step come out different")


def _candidates(num_slots: int) -> Iterator[int]:
    """Powers of two, then all slots at once."""
    candidate = 1
    while candidate < num_slots:
        yield candidate
        candidate *= 2
    yield num_slots


def _agrees(model: CausalModel, candidate: int, num_slots: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    probe_1 = _inputs(model, 1, generator)
    wanted: Tensor | None = None
    for rows in range(candidate, num_slots + candidate, candidate):
        for places in (list(range(rows)), [0], [rows - 1], [rows // 2]):
            inputs_R = _inputs(model, rows, generator)
            inputs_R[places] = probe_1
            outputs = _stepped(model, inputs_R)[places]
            wanted = outputs[:1] if wanted is None else wanted
            if not torch.equal(outputs, wanted.expand_as(outputs)):
                return False
    return True


def _stepped(model: CausalModel, inputs_R: Tensor) -> Tensor:
    """The last outputs and all of the state, a row each. The states lie as they do in an engine."""
    weights = next(model.parameters())
    state = StatePool(model.state_spec, len(inputs_R), weights.dtype, weights.device).first(len(inputs_R))
    for _ in range(_STEPS):
        outputs_RV, _ = model.step(inputs_R, state, out=state)
    flat = [tensor.flatten(1).double() for tensor in state.values()]
    return torch.cat([outputs_RV.double(), *flat], dim=1)


def _inputs(model: CausalModel, rows: int, generator: torch.Generator) -> Tensor:
    embedding, device = model.config.embedding, next(model.parameters()).device
    if isinstance(embedding, NumberEmbeddingConfig):
        return torch.randn(rows, embedding.d_input, generator=generator).to(device)
    return torch.randint(embedding.vocab_size, (rows,), generator=generator).to(device)


@contextmanager
def _running_on(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
