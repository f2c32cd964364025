"""The models a server serves, by name."""

from ssp_runtime.engine.batch_runner import BatchRunner
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import Draining, InvalidRequest, ModelExists, ModelMismatch, UnknownModel
from ssp_runtime.models.model import Classifier, LanguageModel, MaskedLanguageModel, Model, SequenceRegressor

Served = Generator | BatchRunner
# What models are asked to do, and what is said of them.
_VERBS: dict[type[Model], tuple[str, str]] = {
    LanguageModel: ("generate", "generates"),
    SequenceRegressor: ("predict", "predicts numbers"),
    Classifier: ("classify", "classifies"),
    MaskedLanguageModel: ("fill in masked tokens", "fills in masked tokens"),
}


class Registry:
    """`draining` refuses all calls."""

    def __init__(self) -> None:
        self._served: dict[str, Served] = {}
        self._coming: set[str] = set()
        self._going: set[str] = set()
        self.draining = False

    def all(self) -> list[Served]:
        return list(self._served.values())

    def find(self, name: str) -> Served:
        """Raises `UnknownModel`, which lists those there are."""
        if name not in self._served:
            raise UnknownModel(f"no model is called {name!r}; this server has {', '.join(self._served) or 'none'}")
        return self._served[name]

    def reserve(self, name: str) -> None:
        """Keeps a name for a model that is being loaded, up to `add` or `release`. Raises `ModelExists`."""
        if name in self._served or name in self._coming:
            raise ModelExists(f"a model is called {name!r} already; unload it first, or choose another name")
        self._coming.add(name)

    def release(self, name: str) -> None:
        self._coming.discard(name)

    def add(self, served: Served) -> None:
        self._served[served.name] = served
        self.release(served.name)

    def retire(self, name: str) -> None:
        """Refuses new calls to a model. Raises `Draining` if it was retired before."""
        self._refuse_when_going(name)
        self._going.add(name)

    def take_back(self, name: str) -> None:
        """Undoes `retire`."""
        self._going.discard(name)

    def remove(self, name: str) -> None:
        del self._served[name]
        self._going.discard(name)

    def generator(self, name: str) -> Generator:
        """A model that generates, or one that predicts numbers; with an empty name the only one that generates, or
        where none does, the only one that predicts.

        Raises `UnknownModel`, `InvalidRequest` or `Draining`.
        """
        served = self._open(name, LanguageModel, SequenceRegressor)
        assert isinstance(served, Generator)
        return served

    def fitting(self, name: str, fingerprint: str) -> Generator:
        """A model that generates; with an empty name the only one that has this fingerprint.

        Raises `ModelMismatch` if none has, else as `generator`.
        """
        if name:
            return self.generator(name)
        generators = [served for served in self._served.values() if isinstance(served, Generator)]
        names = [served.name for served in generators if served.artifact.fingerprint == fingerprint]
        if not names:
            raise ModelMismatch("no model of this server fits this state; load the one that it was taken from")
        if len(names) > 1:
            raise InvalidRequest(f"name the model: {', '.join(names)} fit this state alike")
        return self.generator(names[0])

    def classifier(self, name: str) -> BatchRunner:
        """A model that classifies; otherwise as `generator`."""
        return self._reader(name, Classifier)

    def filler(self, name: str) -> BatchRunner:
        """A model that fills in masked tokens; otherwise as `generator`."""
        return self._reader(name, MaskedLanguageModel)

    def _reader(self, name: str, kind: type[Model]) -> BatchRunner:
        served = self._open(name, kind)
        assert isinstance(served, BatchRunner)
        return served

    def _open(self, name: str, *kinds: type[Model]) -> Served:
        """Without a name, the only model of the first of these kinds that there is."""
        if self.draining:
            raise Draining("the server is draining; ask another, or this one later")
        served = self.find(name) if name else self._only(kinds)
        self._refuse_when_going(served.name)
        if not isinstance(served.artifact.model, kinds):
            does, wanted = _VERBS[type(served.artifact.model)][1], _VERBS[kinds[0]][0]
            raise InvalidRequest(f"model {name!r} {does}; it cannot {wanted}")
        return served

    def _only(self, kinds: tuple[type[Model], ...]) -> Served:
        of_kinds = {kind: [one for one in self.all() if isinstance(one.artifact.model, kind)] for kind in kinds}
        kind = next((kind for kind, found in of_kinds.items() if found), kinds[0])
        if len(of_kinds[kind]) != 1:
            names = ", ".join(one.name for one in of_kinds[kind]) or "none"
            raise InvalidRequest(f"name the model: those of this server that {_VERBS[kind][0]} are {names}")
        return of_kinds[kind][0]

    def _refuse_when_going(self, name: str) -> None:
        if name in self._going:
            raise Draining(f"model {name!r} is being unloaded")
