"""A causal model, loaded and computing: what a server calls to continue sequences."""

from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssp_runtime.engine.call import Call, CallOptions, Input, ScoringCall
from ssp_runtime.engine.config import EngineConfig
from ssp_runtime.engine.engine import Engine
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.sampling_params import SamplingParams, check_ids
from ssp_runtime.engine.sequence import Sequence
from ssp_runtime.engine.stepping import SteppingCall
from ssp_runtime.errors import ArtifactError, Exhausted, InvalidRequest, SSPError
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.models.config import NumberEmbeddingConfig
from ssp_runtime.models.model import CausalModel
from ssp_runtime.state import StateSpec
from ssp_runtime.tokenizers import ByteTokenizer, Tokenizer

MAX_TOP = 1024  # likeliest tokens of a step


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """What one request may ask for, and how many calls may wait for a slot."""

    max_tokens: int = 100_000
    max_input_tokens: int = 1_000_000
    max_waiting: int = 1024


class Generator:
    """A language model generates, scores and steps; a model over numbers steps, and folds in what it is given."""

    def __init__(
        self,
        name: str,
        artifact: Artifact,
        config: EngineConfig,
        limits: GenerationLimits,
        *,
        deliver: Callable[[list[Call]], None],
        observer: Observer | None = None,
    ) -> None:
        self.name, self.artifact, self.limits = name, artifact, limits
        if not isinstance(artifact.model, CausalModel):
            raise ArtifactError(f"model {name!r} needs whole sequences; it can only classify")
        eos_ids = () if self.takes_numbers else self.tokenizer.eos_ids
        self.engine = Engine(artifact.model, eos_ids, config, deliver=deliver, observer=observer)

    @property
    def takes_numbers(self) -> bool:
        return isinstance(self.artifact.description.model.embedding, NumberEmbeddingConfig)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises `InvalidRequest` if the model takes numbers."""
        if self.artifact.description.tokenizer is None:
            raise InvalidRequest("this model takes numbers, not text or token ids; it can only append and step")
        return self.artifact.description.tokenizer

    @property
    def state_bytes(self) -> int:
        """Bytes of one sequence's state, at any position."""
        return self.engine.pool.row_bytes

    @property
    def state_spec(self) -> StateSpec:
        model = self.artifact.model
        assert isinstance(model, CausalModel)
        return model.state_spec

    def start(self) -> None:
        self.engine.start()

    def stop(self) -> None:
        """Ends every call at its last token."""
        self.engine.stop()

    def new_sequence(self, *, kept: bool) -> Sequence:
        """Of a model over numbers the detokenizer is never given anything."""
        tokenizer = ByteTokenizer() if self.takes_numbers else self.tokenizer
        return Sequence(tokenizer.detokenizer(), kept=kept)

    def new_call(
        self,
        sequence: Sequence,
        prompt: Ids[Input],
        params: SamplingParams | None,
        options: CallOptions | None = None,
    ) -> Call:
        """A call, checked but not submitted.

        A sequence begins with the model's beginning-of-text token, if it has one and the prompt does not bring it.

        Raises:
            InvalidRequest: a parameter, a token or the prompt's length is out of bounds, or there is nothing to do.
        """
        prompt = self._checked(sequence, prompt, params)
        if not prompt and (params is None or sequence.pending is None):
            raise InvalidRequest("the input is empty, and nothing is pending to go on from; give at least one token")
        return Call(sequence, prompt, params, options)

    def repeated(self, last: Call, prompt: Ids[Input], params: SamplingParams | None, options: CallOptions) -> Call:
        """The last call of a sequence again: see `Call.repeated`. Raises as `new_call`."""
        prompt = self._checked(last.sequence, prompt, params)
        if last.num_left > len(prompt):
            raise InvalidRequest("request_id names another call than this one; choose a new one")
        return last.repeated(prompt, params, options)

    def new_stepping_call(
        self, sequence: Sequence, options: CallOptions | None = None, *, top: int = 0
    ) -> SteppingCall:
        """A call to be fed, not submitted. Raises `InvalidRequest` if it cannot tell so many likeliest tokens."""
        if self.takes_numbers:
            if top:
                raise InvalidRequest("this model predicts numbers and has no likeliest tokens; leave top_logprobs at 0")
            return SteppingCall(sequence, options)
        most = min(MAX_TOP, self.tokenizer.vocab_size)
        if top > most:
            raise InvalidRequest(f"top_logprobs must be in [0, {most}], not {top}")
        return SteppingCall(sequence, options, bos_id=self.tokenizer.bos_id, top=top)

    def score(self, prompts: Ids[Ids[int]], start: Sequence | None = None, owner: str = "") -> list[ScoringCall]:
        """Calls under way that score prompts, each by itself: from the initial state, or from that of an idle sequence,
        which stays as it is.

        Raises:
            InvalidRequest, Exhausted: as `new_call` and `submit`; no call is under way.
        """
        sequences = [self.new_sequence(kept=False) for _ in prompts]
        for sequence in sequences if start is not None else ():
            assert start is not None
            self.copy(start, sequence)
        calls = [
            ScoringCall(sequence, self._checked(sequence, prompt), CallOptions(owner=owner))
            for sequence, prompt in zip(sequences, prompts, strict=True)
        ]
        self.submit_all(calls)
        return calls

    def check_inputs(self, inputs: Ids[Input]) -> None:
        """Raises `InvalidRequest` unless a stepping call can be fed with them."""
        if len(inputs) > self.limits.max_input_tokens:
            raise InvalidRequest(
                f"{len(inputs)} tokens are more than the {self.limits.max_input_tokens} of one request"
            )
        embedding = self.artifact.description.model.embedding
        if not isinstance(embedding, NumberEmbeddingConfig):
            check_ids(inputs, embedding.vocab_size)  # type: ignore[arg-type]  # vectors fail too
            return
        vectors = np.asarray(inputs)
        if len(inputs) and (vectors.shape[1:] != (embedding.d_input,) or not np.isfinite(vectors).all()):
            raise InvalidRequest(f"each input of this model is {embedding.d_input} finite numbers")

    def submit(self, call: Call) -> None:
        """Raises `Exhausted` if too many calls wait already."""
        if self.engine.num_waiting >= self.limits.max_waiting:
            raise Exhausted(
                f"{self.engine.num_waiting} calls wait for a slot already; try again later", self.engine.retry_after()
            )
        self.engine.submit(call)

    def submit_all(self, calls: Ids[Call]) -> None:
        """All or none of them. Raises as `submit`."""
        try:
            for call in calls:
                self.submit(call)
        except SSPError:
            for call in calls:
                self.engine.cancel(call)
            raise

    def copy(self, source: Sequence, target: Sequence) -> None:
        """Makes an idle sequence stand where another idle one does; that takes as long at every position."""
        target.become(source)
        self.engine.copy_state(source, target)

    def discard(self, sequence: Sequence) -> None:
        self.engine.discard(sequence)

    def _checked(self, sequence: Sequence, prompt: Ids[Input], params: SamplingParams | None = None) -> Ids[Input]:
        """The prompt, with the beginning-of-text token where it belongs. Raises `InvalidRequest`."""
        if params is not None:
            params.check(self.tokenizer.vocab_size, self.limits.max_tokens)
        self.check_inputs(prompt)
        bos = None if self.takes_numbers else self.tokenizer.bos_id
        if sequence.position == 0 and bos is not None and tuple(prompt[:1]) != (bos,):
            return [bos, *prompt]
        return prompt
