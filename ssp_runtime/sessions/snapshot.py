"""A sequence as bytes and back: its state by name, and all that belongs to it between calls.

The file's header holds the model's fingerprint and state spec, so that no other model takes the state for its own. A
right checksum tells that a file is whole, not who wrote it: what is read here may have been made to do harm.
"""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Ids
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssp_runtime.engine.call import Call, CallOptions
from ssp_runtime.engine.generator import Generator
from ssp_runtime.engine.progress import FinishReason, Progress
from ssp_runtime.engine.sampling_params import check_ids
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.errors import InvalidRequest, ModelMismatch, SnapshotCorrupt, StateCorrupt
from ssp_runtime.models.config import NumberEmbeddingConfig
from ssp_runtime.sessions import health, snapshot_file
from ssp_runtime.sessions.snapshot_header import CallRecord, Header, parsed
from ssp_runtime.state import StateSpec, TensorSpec

_STATE = "state."
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# Bytes that a snapshot's parts take at most.
_FIXED_BYTES = 16 << 10  # the header's fields, what waits to be text, and the penalty window
_LAYOUT_BYTES = 512  # the description of one tensor, but for its name
_TOKEN_BYTES = 64  # a token of the last call, as an id and as text, escaped twice


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """`about` is what the keeper of the sequence adds."""

    sequence: Sequence
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds, before a model has taken it for its own."""

    header: Header
    tensors: Mapping[str, Tensor]


def pack(snapshot: Snapshot, generator: Generator, dtype: torch.dtype | None = None) -> bytes:
    """A detached sequence, its state in host memory; with a `dtype` the state's floating numbers are converted.

    Raises:
        InvalidRequest: the dtype's range is too small for this state.
    """
    sequence, pool = snapshot.sequence, generator.engine.pool
    state = pool.tensors(sequence.spilled)
    tensors = {_STATE + name: _converted(name, tensor, dtype) for name, tensor in state.items()}
    tensors["recent.ids"] = _ids([token for token, _ in sequence.recent])
    tensors["recent.generated"] = torch.tensor([made for _, made in sequence.recent], dtype=torch.bool)
    last = sequence.last_call
    if last is not None:
        tensors["call.taken"], tensors["call.untaken"] = _ids(last.taken().token_ids), _ids(last.untaken().token_ids)
    header = Header(
        fingerprint=generator.artifact.fingerprint,
        state_spec=_spec_to_json(generator.state_spec),
        folded=sequence.folded,
        pending=sequence.pending,
        version=sequence.version,
        last_used=sequence.last_used,
        waiting=sequence.detokenizer.waiting,
        about=dict(snapshot.about),
        call=None if last is None else _record(last),
    )
    return snapshot_file.pack(asdict(header), tensors)


def unpack(data: bytes, find: Callable[[Mapping[str, Any]], Generator]) -> Snapshot:
    """A sequence whose state lies in host memory, of the model that is found by what the snapshot is about.

    Raises:
        SnapshotCorrupt: damaged, or not what `pack` makes.
        ModelMismatch: it is another model's.
    """
    contents = read(data)
    try:
        generator = find(contents.header.about)
    except KeyError as error:
        raise SnapshotCorrupt("the snapshot does not say whose it is; take another copy") from error
    return Snapshot(sequence=restored(contents, generator), about=contents.header.about)


def read(data: bytes) -> Contents:
    """Raises `SnapshotCorrupt` if it is damaged, or not what `pack` makes."""
    header, tensors = snapshot_file.unpack(data)
    try:
        return Contents(header=parsed(header), tensors=tensors)
    except ValueError as error:
        raise SnapshotCorrupt(f"the snapshot holds what cannot be ({error}); export it again") from error


def restored(contents: Contents, generator: Generator) -> Sequence:
    """A sequence of that model, its state in host memory. Raises as `unpack`."""
    _check_model(contents.header, generator)
    try:
        return _sequence(contents.header, contents.tensors, generator)
    except KeyError as error:
        raise SnapshotCorrupt(f"the snapshot lacks {error}; export it again") from error
    except (ValueError, StateCorrupt) as error:
        raise SnapshotCorrupt(f"the snapshot holds what cannot be ({error}); export it again") from error


def max_bytes(generator: Generator, num_call_tokens: int) -> int:
    """How large a snapshot can be of a sequence whose last call brought at most so many tokens."""
    spec = generator.state_spec
    layout = sum(2 * len(name) + _LAYOUT_BYTES for name in spec)
    state = sum(tensor.num_bytes(torch.float32) for tensor in spec.values())
    return _FIXED_BYTES + layout + state + num_call_tokens * _TOKEN_BYTES


# What a model makes of the contents. Each raises ValueError or KeyError for what cannot be.


def _sequence(header: Header, tensors: Mapping[str, Tensor], generator: Generator) -> Sequence:
    sequence = generator.new_sequence(kept=True)
    sequence.folded, sequence.pending = header.folded, header.pending
    sequence.version, sequence.last_used = header.version, header.last_used
    sequence.settled = sequence.position
    ids, generated = _listed(tensors["recent.ids"]), _listed(tensors["recent.generated"], torch.bool)
    sequence.recent.extend(zip(ids, map(bool, generated), strict=True))
    _check_tokens([*ids, *header.waiting, *([] if header.pending is None else [header.pending])], generator)
    sequence.detokenizer.follow(ids)
    sequence.detokenizer.push(header.waiting)
    if sequence.detokenizer.waiting != header.waiting:
        raise ValueError("text that could have been shown waits")
    if header.folded:
        sequence.spilled = _row(header, tensors, generator)
    if header.call is not None:
        sequence.last_call = _call(header.call, tensors, sequence)
        _check_tokens(sequence.last_call.everything().token_ids, generator)
    return sequence


def _row(header: Header, tensors: Mapping[str, Tensor], generator: Generator) -> Tensor:
    pool, spec = generator.engine.pool, generator.state_spec
    state = {name: tensors[_STATE + name] for name in spec}
    for name, tensor in state.items():
        _check_tensor(name, tensor, spec[name], header.folded)
    row = pool.packed(state)
    health.check(pool.tensors(row), spec)  # as it is computed with, whatever it came as
    return row


def _check_tensor(name: str, tensor: Tensor, spec: TensorSpec, folded: int) -> None:
    dtypes = (torch.int64,) if spec.kind == "index" else _FLOATS
    if tensor.shape != spec.shape or tensor.dtype not in dtypes:
        raise ValueError(f"{name} is not of shape {spec.shape}, or not of a dtype that goes with {spec.kind}")
    if spec.kind == "index" and tensor.numel() and not 0 <= int(tensor.min()) <= int(tensor.max()) <= folded:
        raise ValueError(f"{name} counts more tokens than there were")


def _call(record: CallRecord, tensors: Mapping[str, Tensor], sequence: Sequence) -> Call:
    if record.num_flushed > len(record.taken_text) + len(record.untaken_text):
        raise ValueError("more text was let go than there is")
    call = Call(sequence, (), options=CallOptions(request_id=record.request_id))
    call.num_prompt_tokens, call.num_left = record.num_prompt_tokens, record.num_left
    call.num_generated, call.cached_tokens = record.num_generated, record.cached_tokens
    call.text.resume(record.held, record.num_generated)
    call.restore_results(
        taken=Progress(position=0, token_ids=tuple(_listed(tensors["call.taken"])), text=record.taken_text),
        untaken=Progress(position=0, token_ids=tuple(_listed(tensors["call.untaken"])), text=record.untaken_text),
        num_flushed=record.num_flushed,
        last=Progress(position=sequence.position, finish_reason=FinishReason(record.finish_reason)),
    )
    return call


def _check_model(header: Header, generator: Generator) -> None:
    """Raises `ModelMismatch`."""
    if header.fingerprint != generator.artifact.fingerprint:
        raise ModelMismatch(f"the snapshot is of another model than {generator.name!r}, or of other weights")
    if header.state_spec != _spec_to_json(generator.state_spec):
        raise ModelMismatch(f"the snapshot's state is not laid out as that of {generator.name!r} is")


def _check_tokens(ids: Ids[int], generator: Generator) -> None:
    embedding = generator.artifact.description.model.embedding
    check_ids(ids, 0 if isinstance(embedding, NumberEmbeddingConfig) else embedding.vocab_size)


def _spec_to_json(spec: StateSpec) -> dict[str, Any]:
    return {name: {"shape": list(tensor.shape), "kind": tensor.kind} for name, tensor in spec.items()}


def _record(call: Call) -> CallRecord:
    assert call.finish_reason is not None
    return CallRecord(
        request_id=call.options.request_id,
        num_prompt_tokens=call.num_prompt_tokens,
        num_left=call.num_left,
        num_generated=call.num_generated,
        cached_tokens=call.cached_tokens,
        taken_text=call.taken().text,
        untaken_text=call.untaken().text,
        num_flushed=call.num_flushed,
        held=call.text.held,
        finish_reason=call.finish_reason.value,
    )


def _converted(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not tensor.is_floating_point():
        return tensor
    converted = tensor.to(dtype)
    if not torch.equal(converted.isfinite(), tensor.isfinite()):
        raise InvalidRequest(f"{name} of the state holds numbers beyond the range of {dtype}; take bfloat16, or none")
    return converted


def _ids(tokens: Ids[int]) -> Tensor:
    return torch.tensor(tokens, dtype=torch.int32)


def _listed(tensor: Tensor, dtype: torch.dtype = torch.int32) -> list[int]:
    if tensor.ndim != 1 or tensor.dtype != dtype:
        raise ValueError("tokens do not come as a list")
    return list(tensor.tolist())
