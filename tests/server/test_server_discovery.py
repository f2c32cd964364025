"""What a client can find out about a server: its models, its health, its contract."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ssp.v1 import models_pb2
from ssp_client import Client, InputKind, NotFound, ServingStatus, Task
from ssp_runtime import state
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.models.model import Model
from ssp_server.wire import TASKS
from tests.greedy import Greedy
from tests.server.server_process import PATIENCE, ServerProcess
from tests.server.tiny_artifacts import LABELS

SERVICES = tuple(
    f"ssp.v1.{name}" for name in ("Generation", "Sessions", "Classification", "Filling", "Models", "Admin")
)


def test_models(client: Client, writer: Artifact, reader: Artifact) -> None:
    listed = {model.name: model for model in client.models()}
    assert list(listed) == ["writer", "reader"]
    assert all(client.model(name) == model for name, model in listed.items())
    generates, classifies = listed.values()

    assert (generates.task, generates.input_kind, generates.form) == (Task.GENERATE, InputKind.TOKENS, "recurrent")
    assert generates.architecture == "1 x mamba(s6), 1 x mamba(s4d)" and generates.num_layers == 2
    assert (generates.vocab_size, generates.d_model, generates.dtype) == (256, 32, "float32")
    assert generates.fingerprint == writer.fingerprint and generates.num_parameters == writer.num_parameters
    spec = writer.language_model.state_spec
    exact = sum(tensor.num_bytes(writer.language_model.lm_head.weight.dtype) for tensor in spec.values())
    assert exact == state.num_bytes(spec, writer.language_model.lm_head.weight.dtype)
    assert exact <= generates.state_bytes_per_session < exact + 64 * len(spec)
    assert generates.limits.max_tokens == 20_000 and generates.limits.max_message_bytes == 4 << 20

    assert (classifies.task, classifies.form, classifies.labels) == (Task.CLASSIFY, "bidirectional", LABELS)
    assert classifies.state_bytes_per_session == 0 and classifies.limits.max_batch_sequences == 4096
    assert classifies.fingerprint == reader.fingerprint


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_every_service_is_ready(client: Client, service: str) -> None:
    assert client.health(service) is ServingStatus.SERVING


def test_every_kind_of_model_has_a_task_of_its_own() -> None:
    assert set(TASKS) == set(get_args(Model))
    assert sorted(TASKS.values()) == sorted(set(models_pb2.Task.values()) - {models_pb2.TASK_UNSPECIFIED})


def test_the_health_of_an_unknown_service(client: Client) -> None:
    with pytest.raises(NotFound):
        client.health("ssp.v1.Nothing")


def test_a_client_that_knows_reflection_alone_can_use_the_server(server: ServerProcess, greedy: Greedy) -> None:
    script = Path(__file__).with_name("reflection_client.py")
    made = subprocess.run(
        [sys.executable, "-I", str(script), server.target], capture_output=True, timeout=2 * PATIENCE, check=False
    )
    assert made.returncode == 0, made.stderr.decode()
    answers = json.loads(made.stdout)
    assert set(answers["services"]) >= {*SERVICES, "grpc.health.v1.Health"}
    assert [model["name"] for model in answers["models"][0]["models"]] == ["writer", "reader"]
    greedy.check([token for chunk in answers["generated"] for token in chunk["tokenIds"]], [0, *b"Once"])
    assert answers["generated"][-1]["finishReason"] == "FINISH_REASON_LENGTH"
    (classified,) = answers["classified"]
    assert [prediction["numTokens"] for prediction in classified["predictions"]] == ["7", "2"]
