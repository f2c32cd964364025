"""The models a server serves, by name."""

from collections.abc import Iterable

from ssp_runtime.engine.batch_classifier import BatchClassifier
from ssp_runtime.engine.generator import Generator
from ssp_runtime.errors import Draining, InvalidRequest, UnknownModel

Served = Generator | BatchClassifier


class Registry:
    def __init__(self, served: Iterable[Served]) -> None:
        self._served = {each.name: each for each in served}
        self.draining = False

    def all(self) -> list[Served]:
        return list(self._served.values())

    def find(self, name: str) -> Served:
        """Raises `UnknownModel`, which lists those there are."""
        if name not in self._served:
            raise UnknownModel(f"no model is called {name!r}; this server has {', '.join(self._served) or 'none'}")
        return self._served[name]

    def generator(self, name: str) -> Generator:
        """A model that generates; with an empty name the only one.

        Raises `UnknownModel`, `InvalidRequest` or `Draining`.
        """
        self._refuse_when_draining()
        served = self.find(name) if name else self._only(Generator)
        if not isinstance(served, Generator):
            raise InvalidRequest(f"model {name!r} classifies; it cannot generate")
        return served

    def classifier(self, name: str) -> BatchClassifier:
        """A model that classifies; otherwise as `generator`."""
        self._refuse_when_draining()
        served = self.find(name) if name else self._only(BatchClassifier)
        if not isinstance(served, BatchClassifier):
            raise InvalidRequest(f"model {name!r} generates; it cannot classify")
        return served

    def _only(self, kind: type[Served]) -> Served:
        fitting = [each for each in self._served.values() if isinstance(each, kind)]
        if len(fitting) != 1:
            verb = "generate" if kind is Generator else "classify"
            names = ", ".join(each.name for each in fitting) or "none"
            raise InvalidRequest(f"name the model: those of this server that {verb} are {names}")
        return fitting[0]

    def _refuse_when_draining(self) -> None:
        if self.draining:
            raise Draining("the server is shutting down; ask another, or this one later")
