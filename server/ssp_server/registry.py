"""The models a server serves, by name."""

from ssp_runtime.engine.batch_classifier import BatchClassifier
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import Draining, InvalidRequest, ModelExists, ModelMismatch, UnknownModel

Served = Generator | BatchClassifier


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
        served = self._open(name, Generator)
        if not isinstance(served, Generator):
            raise InvalidRequest(f"model {name!r} classifies; it cannot generate")
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

    def classifier(self, name: str) -> BatchClassifier:
        """A model that classifies; otherwise as `generator`."""
        served = self._open(name, BatchClassifier)
        if not isinstance(served, BatchClassifier):
            verb = "predicts numbers" if served.takes_numbers else "generates"
            raise InvalidRequest(f"model {name!r} {verb}; it cannot classify")
        return served

    def _open(self, name: str, kind: type[Served]) -> Served:
        if self.draining:
            raise Draining("the server is draining; ask another, or this one later")
        served = self.find(name) if name else self._only(kind)
        self._refuse_when_going(served.name)
        return served

    def _only(self, kind: type[Served]) -> Served:
        fitting = [each for each in self._served.values() if isinstance(each, kind)]
        fitting = [each for each in fitting if _verb(each) != "predict"] or fitting
        if len(fitting) != 1:
            verb = _verb(fitting[0]) if fitting else "generate" if kind is Generator else "classify"
            names = ", ".join(each.name for each in fitting) or "none"
            raise InvalidRequest(f"name the model: those of this server that {verb} are {names}")
        return fitting[0]

    def _refuse_when_going(self, name: str) -> None:
        if name in self._going:
            raise Draining(f"model {name!r} is being unloaded")


def _verb(served: Served) -> str:
    if isinstance(served, BatchClassifier):
        return "classify"
    return "predict" if served.takes_numbers else "generate"
