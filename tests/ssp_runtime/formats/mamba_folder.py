"""A folder as `transformers` saves a tiny Mamba, with the vocabulary of a text model."""

import json
from pathlib import Path

import torch
from transformers import MambaConfig, MambaForCausalLM

from tests.ssp_runtime.vocabularies import byte_level

VOCAB_SIZE = 304


def write_mamba(folder: Path) -> MambaForCausalLM:
    """Its texts end with id 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MambaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=24,
            state_size=5,
            num_hidden_layers=3,
            conv_kernel=3,
            time_step_rank=3,
            tie_word_embeddings=False,
        )
        model: MambaForCausalLM = MambaForCausalLM(config)
        model.get_parameter("backbone.embeddings.weight").data *= 50  # so that greedy texts vary
        model.get_parameter("lm_head.weight").data *= 10
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(byte_level())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    return model
