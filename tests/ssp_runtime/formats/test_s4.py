"""S4 and S4D of the published code's example model, under each version's names, are what their equations say."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import Tensors
from ssp_runtime.formats.foreign import find_format, load_foreign
from ssp_runtime.formats.foreign.base import assemble
from tests import oracles
from tests.ssp_runtime.formats.foreign_harness import DAMAGES, TOLERANCE

FEATURES, MODES, CLASSES, LENGTH = 4, 3, 5, 23
L_KERNEL = 40
KINDS = ("s4d-minimal", "s4d-3", "s4d-4", "s4-3", "s4-4")
OF_ALL = pytest.mark.parametrize("kind", KINDS)


class Layer:
    """A state space with a dense matrix over its modes and their conjugates, (D, 2N, 2N)."""

    def __init__(self, is_dplr: bool) -> None:
        self.dt = torch.empty(FEATURES).uniform_(-4, -1)
        self.A_real, self.A_imag = torch.randn(2, MODES) * 0.3, torch.rand(2, MODES) * 3
        self.B, self.C = (torch.randn(n, MODES, dtype=torch.complex128) for n in (2, FEATURES))
        self.P = torch.randn(2, MODES, dtype=torch.complex128) * 0.5 if is_dplr else None
        self.D = torch.randn(FEATURES)
        self.output = torch.randn(2 * FEATURES, FEATURES), torch.randn(2 * FEATURES)
        self.norm = 1 + 0.3 * torch.randn(FEATURES), 0.3 * torch.randn(FEATURES)

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """Abar, Bbar and C, in double precision. Features take turns in the two state spaces."""
        A = torch.complex(-self.A_real.double().exp(), self.A_imag.double())
        A, B = (_with_conjugates(t.repeat(FEATURES // 2, 1)) for t in (A, self.B))
        matrix, half = torch.diag_embed(A), self.dt.double().exp()[:, None, None] / 2
        eye = torch.eye(2 * MODES, dtype=torch.complex128)
        if self.P is None:
            Abar = torch.diag_embed((2 * half[..., 0] * A).exp())
            return Abar, (Abar.diagonal(dim1=1, dim2=2) - 1) / A * B, _with_conjugates(self.C)
        P = _with_conjugates(self.P.repeat(FEATURES // 2, 1))
        matrix = matrix - P[..., None] * P.conj()[:, None]
        Abar = torch.linalg.solve(eye - half * matrix, eye + half * matrix)
        Bbar = torch.linalg.solve(eye - half * matrix, 2 * half * B[..., None]).squeeze(-1)
        return Abar, Bbar, _with_conjugates(self.C)

    def c_tilde(self) -> Tensor:
        Abar, _, C = self.discrete()
        lost = torch.eye(2 * MODES, dtype=C.dtype) - torch.linalg.matrix_power(Abar, L_KERNEL)
        return self.C if self.P is None else torch.einsum("dn,dnm->dm", C, lost)[:, :MODES]

    def __call__(self, x_BLD: Tensor) -> Tensor:
        (Abar, Bbar, C), outputs = self.discrete(), []
        state = torch.zeros(len(x_BLD), FEATURES, 2 * MODES, dtype=torch.complex128)
        for t in range(x_BLD.shape[1]):
            state = torch.einsum("dnm,bdm->bdn", Abar, state) + Bbar * x_BLD[:, t, :, None]
            outputs.append((C * state).sum(-1).real.float() + self.D * x_BLD[:, t])
        weight, bias = self.output
        return F.glu(F.gelu(torch.stack(outputs, 1)) @ weight.T + bias, -1)


def _with_conjugates(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], -1)


class Example:
    """Two blocks, and their tensors under the names of a version."""

    def __init__(self, kind: str) -> None:
        torch.manual_seed(0)
        name, self.version = kind.split("-")
        self.layers = [Layer(is_dplr=name == "s4") for _ in range(2)]
        self.encoder = torch.randn(FEATURES, 2), torch.randn(FEATURES)
        self.decoder = torch.randn(CLASSES, FEATURES), torch.randn(CLASSES)
        if self.version == "minimal":
            for layer in self.layers:
                layer.B = torch.ones_like(layer.B)

    def logits(self, x: Tensor, prenorm: bool = False) -> Tensor:
        x = x @ self.encoder[0].T + self.encoder[1]
        for layer in self.layers:
            weight, bias = layer.norm
            if prenorm:
                x = x + layer(F.layer_norm(x, (FEATURES,), weight, bias))
            else:
                x = F.layer_norm(x + layer(x), (FEATURES,), weight, bias)
        return x.mean(1) @ self.decoder[0].T + self.decoder[1]

    def tensors(self) -> dict[str, Tensor]:
        found = dict(_linear("encoder", *self.encoder) | _linear("decoder", *self.decoder))
        for i, layer in enumerate(self.layers):
            found |= _linear(f"norms.{i}", *layer.norm)
            block = {"minimal": self._minimal, "3": self._version_3, "4": self._version_4}[self.version](layer)
            found |= {f"s4_layers.{i}.{name}": tensor for name, tensor in block.items()}
        return found

    def _minimal(self, layer: Layer) -> dict[str, Tensor]:
        return {
            "D": layer.D,
            "kernel.C": torch.view_as_real(layer.C).float(),
            "kernel.log_dt": layer.dt,
            "kernel.log_A_real": layer.A_real.repeat(FEATURES // 2, 1),
            "kernel.A_imag": layer.A_imag.repeat(FEATURES // 2, 1),
            **_linear("output_linear.0", layer.output[0][..., None], layer.output[1]),
        }

    def _version_4(self, layer: Layer) -> dict[str, Tensor]:
        found = {
            "layer.D": layer.D[None],
            "layer.kernel.C": torch.view_as_real(layer.c_tilde())[None].float(),
            "layer.kernel.B": torch.view_as_real(layer.B)[None].float(),
            "layer.kernel.inv_dt": layer.dt[:, None],
            "layer.kernel.A_real": layer.A_real,
            "layer.kernel.A_imag": -layer.A_imag,
            **_linear("output_linear.0", *layer.output),
        }
        if layer.P is not None:
            found["layer.kernel.P"] = torch.view_as_real(layer.P)[None].float()
            found["layer.kernel.l_kernel"] = torch.tensor(L_KERNEL)
        return found

    def _version_3(self, layer: Layer) -> dict[str, Tensor]:
        names = {"inv_dt": "log_dt", "A_real": "log_w_real", "A_imag": "w_imag", "l_kernel": "L"}
        found = {}
        for name, tensor in self._version_4(layer).items():
            *_, last = name.split(".")
            plain = name.replace("layer.kernel.", "kernel.kernel.").replace("layer.D", "D")
            found[plain.removesuffix(last) + names.get(last, last)] = {
                "A_imag": -tensor,
                "inv_dt": tensor.squeeze(-1),
            }.get(last, tensor)
        return found


def _linear(name: str, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _inputs() -> Tensor:
    return torch.randn(2, LENGTH, 2, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@OF_ALL
def test_logits(kind: str, tmp_path: Path) -> None:
    example = Example(kind)
    torch.save(example.tensors(), tmp_path / "model.pth")
    model = load_foreign(tmp_path / "model.pth").classifier
    assert oracles.difference(model(_inputs()), example.logits(_inputs())) < TOLERANCE


@torch.no_grad()
def test_norms_are_before_the_blocks_if_the_settings_say_so() -> None:
    example = Example("s4-4")
    checkpoint = Tensors(example.tensors())
    checkpoint.config = {"prenorm": True}
    model = assemble(checkpoint, find_format(checkpoint)).classifier
    assert oracles.difference(model(_inputs()), example.logits(_inputs(), prenorm=True)) < TOLERANCE


@OF_ALL
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tensors_are_refused_by_name(kind: str, damage: str) -> None:
    change, message = DAMAGES[damage]
    tensors, damaged = Example(kind).tensors(), "norms.1.weight"
    change(tensors, damaged)
    checkpoint = Tensors(tensors)
    with pytest.raises(ArtifactError, match=message.format(damaged)):
        assemble(checkpoint, find_format(checkpoint))


def test_another_sampling_is_refused() -> None:
    checkpoint = Tensors(Example("s4d-4").tensors())
    checkpoint.config = {"disc": "dss"}
    with pytest.raises(ArtifactError, match="disc is 'dss'"):
        assemble(checkpoint, find_format(checkpoint))
