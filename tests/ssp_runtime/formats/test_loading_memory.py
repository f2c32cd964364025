"""A model of the size people use: how much memory and time it takes to load."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import MambaConfig, MambaForCausalLM

MEASURE = """
import sys, threading, time, torch

def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

def watch():
    while not loaded.wait(0.002):
        peaks.append(anonymous())

loaded, base, peaks = threading.Event(), anonymous(), [0]
watcher = threading.Thread(target=watch)
watcher.start()
from ssp_runtime.formats.open import open_model
started = time.process_time()
model = open_model(sys.argv[1]).model
seconds = time.process_time() - started
loaded.set()
watcher.join()
print(max(peaks) - base, sum(parameter.nbytes for parameter in model.parameters()), seconds)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_model_of_130_million_parameters_takes_little_more_than_its_weights(tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=50280, hidden_size=768, num_hidden_layers=24)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MambaForCausalLM(config).state_dict().items()}
    del shapes["lm_head.weight"]  # tied
    config.architectures = ["MambaForCausalLM"]
    config.save_pretrained(tmp_path)
    save_file({name: torch.rand(shape) / 64 for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak, weights, seconds = map(float, printed.split())
    assert weights > 129e6 * 4
    assert 0.9 < peak / weights < 1.3
    assert seconds < 10, "of processor time"
