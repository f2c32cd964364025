"""The model that other tests trust."""

import numpy as np
import torch

from tests.ssp_runtime.sessions.hash_chain import VOCAB, HashChain, logits


def test_the_model_folds_as_python_does() -> None:
    tokens = np.random.default_rng(0).integers(0, VOCAB, 50).tolist()
    model = HashChain()
    parallel_BLV, state = model(torch.tensor([tokens]), model.initial_state(1))
    again = model.initial_state(1)
    for at, token in enumerate(tokens):
        stepped_BV, _ = model.step(torch.tensor([token]), again, out=again)
        assert torch.equal(stepped_BV[0], parallel_BLV[0, at])
        assert torch.equal(stepped_BV[0], logits(tokens[: at + 1]))
    assert torch.equal(state["limbs"], again["limbs"]) and int(again["count"]) == 50
