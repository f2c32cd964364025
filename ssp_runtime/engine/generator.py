"""A language model, loaded and computing: what a server calls to continue sequences."""

from collections.abc import Callable
from collections.abc import Sequence as Ids
from dataclasses import dataclass

from ssp_runtime.engine.engine import Engine, EngineConfig
from ssp_runtime.engine.observer import Observer
from ssp_runtime.engine.sampling_params import SamplingParams, check_ids
from ssp_runtime.engine.sequence import Call, Sequence
from ssp_runtime.errors import ArtifactError, Exhausted, InvalidRequest, SSPError
from ssp_runtime.formats.artifact import Artifact


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """What one request may ask for, and how many calls may wait for a slot."""

    max_tokens: int = 100_000
    max_input_tokens: int = 1_000_000
    max_waiting: int = 1024


class Generator:
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
        if artifact.description.tokenizer is None:
            raise ArtifactError(f"model {name!r} has no tokenizer, so it cannot generate text")
        self.name, self.artifact, self.limits = name, artifact, limits
        self.tokenizer = artifact.description.tokenizer
        self.engine = Engine(artifact.language_model, self.tokenizer.eos_id, config, deliver=deliver, observer=observer)

    @property
    def state_bytes(self) -> int:
        """Bytes of one sequence's state, at any position."""
        return self.engine.pool.row_bytes

    def start(self) -> None:
        self.engine.start()

    def stop(self) -> None:
        """Ends every call at its last token."""
        self.engine.stop()

    def new_sequence(self, *, kept: bool) -> Sequence:
        return Sequence(self.tokenizer.detokenizer(), kept=kept)

    def new_call(
        self, sequence: Sequence, prompt: Ids[int], params: SamplingParams | None, *, scored: bool = False
    ) -> Call:
        """A call, checked but not submitted.

        A sequence begins with the model's beginning-of-text token, if it has one and the prompt does not bring it.

        Raises:
            InvalidRequest: a parameter, a token or the prompt's length is out of bounds, or there is nothing to do.
        """
        check_ids(prompt, self.tokenizer.vocab_size)
        if len(prompt) > self.limits.max_input_tokens:
            raise InvalidRequest(
                f"{len(prompt)} tokens are more than the {self.limits.max_input_tokens} of one request"
            )
        if params is not None:
            params.check(self.tokenizer.vocab_size, self.limits.max_tokens)
        bos = self.tokenizer.bos_id
        if sequence.position == 0 and bos is not None and tuple(prompt[:1]) != (bos,):
            prompt = [bos, *prompt]
        if not prompt and (params is None or sequence.position == 0):
            raise InvalidRequest("the input is empty; give at least one token")
        return Call(sequence, prompt, params, scored=scored)

    def score(self, prompts: Ids[Ids[int]], start: Sequence | None = None) -> list[Call]:
        """Calls under way that score prompts, each by itself: from the initial state, or from that of an idle sequence,
        which stays as it is.

        Raises:
            InvalidRequest, Exhausted: as `new_call` and `submit`; no call is under way.
        """
        sequences = [self.new_sequence(kept=False) for _ in prompts]
        for sequence in sequences if start is not None else ():
            assert start is not None
            self.copy(start, sequence)
        calls = [self.new_call(*pair, None, scored=True) for pair in zip(sequences, prompts, strict=True)]
        self.submit_all(calls)
        return calls

    def submit(self, call: Call) -> None:
        """Raises `Exhausted` if too many calls wait already."""
        if self.engine.num_waiting >= self.limits.max_waiting:
            raise Exhausted(f"{self.engine.num_waiting} calls wait for a slot already; try again later")
        self.engine.submit(call)

    def submit_all(self, calls: Ids[Call]) -> None:
        """All or none of them. Raises as `submit`."""
        try:
            for call in calls:
                self.submit(call)
        except SSPError:
            for call in calls:
                call.cancel()
            raise

    def copy(self, source: Sequence, target: Sequence) -> None:
        """Makes an idle sequence stand where another idle one does; that takes as long at every position."""
        target.become(source)
        self.engine.copy_state(source, target)

    def discard(self, sequence: Sequence) -> None:
        self.engine.discard(sequence)
