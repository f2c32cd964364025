"""Checkpoints that other programs wrote, read tensor by tensor: nothing in them is run, and no second copy is made."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.json_file import CONFIG_FILE, read_json

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


class Checkpoint(ABC):
    """Tensors by their names there, and what `config.json` says, if there is one."""

    config: Mapping[str, Any]

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def names(self) -> list[str]: ...

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Raises `ArtifactError` if there is no such tensor."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Raises `ArtifactError` if there is no such tensor."""

    def size(self, name: str, dim: int) -> int:
        """Raises `ArtifactError` if the tensor has none."""
        shape = self.shape(name)
        if dim >= len(shape) or not shape[dim]:
            raise ArtifactError(f"{name} has no size in dimension {dim}: its shape is {shape}")
        return shape[dim]

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def close(self) -> None:  # noqa: B027  # what lies in memory has no files
        """Lets go of the files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lacks(self, name: str) -> ArtifactError:
        return ArtifactError(f"{self.path} lacks the tensor {name}; the download or the copy is not complete")


class Folder(Checkpoint):
    """A folder with `config.json` and safetensors, in one file or in several with an index."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.config = read_json(path / CONFIG_FILE)
        self._files = ExitStack()
        try:
            self._of = {name: file for file in map(self._open, _weight_files(path)) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            self.close()
            raise ArtifactError(f"the weights in {path} cannot be read; copy them again: {error}") from error

    def names(self) -> list[str]:
        return list(self._of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file(name).get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        try:
            return torch.as_tensor(self._file(name).get_tensor(name))
        except SafetensorError as error:
            raise ArtifactError(f"{name} cannot be read; save it as float32, bfloat16 or float16: {error}") from error

    def close(self) -> None:
        self._files.close()

    def _open(self, path: Path) -> Any:
        return self._files.enter_context(safe_open(path, framework="pt"))

    def _file(self, name: str) -> Any:
        if name not in self._of:
            raise self.lacks(name)
        return self._of[name]


class Tensors(Checkpoint):
    """Tensors that are in memory; `path` is where they are from."""

    config: Mapping[str, Any] = {}

    def __init__(self, tensors: Mapping[str, Tensor], path: Path = Path("the checkpoint")) -> None:
        super().__init__(path)
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.read(name).shape)

    def read(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise self.lacks(name)
        return self._tensors[name]


class Pickle(Tensors):
    """A `.pth` or `.pt` file of tensors by their names; nothing else in it is unpickled."""

    def __init__(self, path: Path) -> None:
        super().__init__(_unpickled(path), path)


class PickledFolder(Tensors):
    """A folder with `config.json` and `pytorch_model.bin`, in one file or in several."""

    def __init__(self, path: Path) -> None:
        files = sorted(path.glob("pytorch_model*.bin"))
        super().__init__({name: tensor for file in files for name, tensor in _unpickled(file).items()}, path)
        self.config = read_json(path / CONFIG_FILE)


def open_checkpoint(path: Path) -> Checkpoint:
    """Raises `ArtifactError`."""
    if not path.is_dir():
        return Pickle(path)
    return PickledFolder(path) if holds_pickles(path) else Folder(path)


def holds_pickles(path: Path) -> bool:
    """Whether that is a folder with pickles instead of safetensors."""
    return path.is_dir() and not any(path.glob("*.safetensors")) and any(path.glob("pytorch_model*.bin"))


class Watched(Checkpoint):
    """Another checkpoint, and the names of those of its tensors that were read: `taken`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint.path)
        self.config, self.taken = checkpoint.config, set[str]()
        self._checkpoint = checkpoint

    def names(self) -> list[str]:
        return self._checkpoint.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._checkpoint.shape(name)

    def read(self, name: str) -> Tensor:
        self.taken.add(name)
        return self._checkpoint.read(name)


def _weight_files(path: Path) -> Iterator[Path]:
    if not (path / _INDEX).exists():
        yield path / _WEIGHTS
        return
    places = read_json(path / _INDEX).get("weight_map")
    if not isinstance(places, dict):
        raise ArtifactError(f"{path / _INDEX} says of no tensor where it is")
    for name in sorted(set(map(str, places.values()))):
        if Path(name).name != name:
            raise ArtifactError(f"{path / _INDEX} names a file outside of the folder: {name}")
        yield path / name


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ArtifactError(f"{path} cannot be read as a checkpoint: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as there are
        raise ArtifactError(f"{path} cannot be read as a checkpoint of tensors: download or copy it again") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArtifactError(f"{path} does not hold tensors by their names")
    return weights
