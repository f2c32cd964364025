"""Any model that there is: our artifact, another program's checkpoint, or a name on the Hugging Face hub."""

from dataclasses import replace
from pathlib import Path

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats import artifact, hub
from ssp_runtime.formats.artifact import Artifact
from ssp_runtime.formats.checkpoint import PICKLES, holds_pickles
from ssp_runtime.formats.convert import to_recurrent
from ssp_runtime.formats.foreign import load_foreign
from ssp_runtime.formats.json_file import CONFIG_FILE, read_json


def open_model(source: str | Path) -> Artifact:
    """A model in recurrent form, ready to serve. Nothing in its files is run.

    Raises:
        ArtifactError: there is no such model, it is not sound, or it comes as a pickle.
    """
    found = read_model(source, pickles=False)
    to_recurrent(found.model)
    return replace(found, description=replace(found.description, form="recurrent"))


def read_model(source: str | Path, *, pickles: bool, group_norm_eps: float | None = None) -> Artifact:
    """A model in the form it is stored in. `pickles` may be read by programs that serve nobody; for `group_norm_eps`
    see `load_foreign`. Raises as `open_model`."""
    path = located(source, pickles=pickles)
    if is_ours(path):
        if group_norm_eps is not None:
            raise ArtifactError(f"{path} records its norms' eps already; leave --group-norm-eps out")
        return artifact.load(path)
    if not pickles and (path.suffix in PICKLES or holds_pickles(path)):
        raise ArtifactError(
            f"{path} is a pickle, which is not served: convert it once with ssp-model convert {path} FOLDER"
        )
    return load_foreign(path, group_norm_eps)


def located(source: str | Path, *, pickles: bool) -> Path:
    """Where it lies on this machine, if need be from now on. Raises `ArtifactError`."""
    path = Path(source)
    try:
        path.stat()
    except FileNotFoundError as error:
        if hub.is_name(str(source)):
            return hub.download(str(source), pickles=pickles)
        raise ArtifactError(f"{path} is no model folder: there is nothing there") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    return path


def is_ours(path: Path) -> bool:
    """What cannot be told counts as a checkpoint of another program."""
    try:
        return "format_version" in read_json(path / CONFIG_FILE)
    except ArtifactError:
        return False
