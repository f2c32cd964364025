"""Times the forms of `selective_scan` side by side: `python benchmarks/selective_scan.py --device cuda`.

Median times of one call, and how much faster than the torch form that is. Every form gets the same float32 inputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor
from torch.utils.benchmark import Timer

from ssp_kernels.registry import Unavailable
from ssp_kernels.selective_scan import OPERATOR, SelectiveScanForm

BASELINE = "torch"
ONLY_ON = {"native": "cpu", "triton": "cuda"}
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Prepare = Callable[[SelectiveScanForm, Inputs], Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The defaults are one layer of a Mamba of 130M parameters."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    forms: tuple[str, ...] = ("torch", "native", "triton")  # or reference
    features: int = 1536
    states: int = 16
    batch: int = 1  # of the sequences
    lengths: tuple[int, ...] = (256, 2048)
    step_batches: tuple[int, ...] = (1, 16, 64, 256)
    seconds: float = 1.0  # of measuring each cell of the table


def main(options: Options) -> None:
    forms = dict(_available(options))
    print(f"selective_scan on {options.device}, {options.features} features x {options.states} states, float32")
    print("".join(f"{title:>24}" for title in ("", *forms)))
    for title, prepare, given in _rows(options):
        seconds = {name: _median(prepare(form, given), options) for name, form in forms.items()}
        cells = (_cell(seconds[name], seconds.get(BASELINE)) for name in forms)
        print("".join(f"{cell:>24}" for cell in (title, *cells)), flush=True)


def _available(options: Options) -> Iterator[tuple[str, SelectiveScanForm]]:
    kind = torch.device(options.device).type
    for name in options.forms:
        try:
            form = OPERATOR.form(name)
        except Unavailable as reason:
            print(f"without {name}: {reason}")
            continue
        if ONLY_ON.get(name, kind) == kind:  # elsewhere it is the torch form by another name
            yield name, form


def _rows(options: Options) -> Iterator[tuple[str, Prepare, Inputs]]:
    for length in options.lengths:
        given = _inputs(options, options.batch, length)
        yield f"forward, L = {length}", _forward, given
        yield f"with backward, L = {length}", _training, given
    for batch in options.step_batches:
        yield f"step, {batch} rows", _stepping, _inputs(options, batch, 1)


def _inputs(options: Options, batch: int, length: int) -> Inputs:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(options.device)

    x, dt = normal(batch, length, options.features), 0.01 * normal(batch, length, options.features).exp()
    A, state = -normal(options.features, options.states).exp(), normal(batch, options.features, options.states)
    return x, dt, A, normal(batch, length, options.states), normal(batch, length, options.states), state


def _forward(form: SelectiveScanForm, given: Inputs) -> Callable[[], object]:
    return lambda: form.forward(*given)


def _training(form: SelectiveScanForm, given: Inputs) -> Callable[[], object]:
    tensors = [t.detach().requires_grad_() for t in given]

    def run() -> object:
        y, final = form.forward(*tensors)
        return torch.autograd.grad((y, final), tensors, (y.detach(), final.detach()))

    return run


def _stepping(form: SelectiveScanForm, given: Inputs) -> Callable[[], object]:
    x, dt, A, B, C, state = given
    return lambda: form.step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state, state)


def _median(run: Callable[[], object], options: Options) -> float:
    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=options.seconds).median


def _cell(seconds: float, baseline: float | None) -> str:
    return f"{1e3 * seconds:.3f} ms" + (f" ({baseline / seconds:.1f}x)" if baseline else "")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
