"""Model folders from the Hugging Face hub."""

import re
from pathlib import Path

from ssp_runtime.errors import ArtifactError
from ssp_runtime.formats.checkpoint import PICKLES

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DATA = ("*.json", "*.safetensors", "*.txt", "chat_template.jinja")


def is_name(text: str) -> bool:
    """OWNER/NAME."""
    return _NAME.fullmatch(text) is not None


def download(name: str, *, pickles: bool) -> Path:
    """The folder of a model, which is kept for the next time. Code is never fetched. Raises `ArtifactError`."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ArtifactError(
            f"there is no folder {name}; to take it from the Hugging Face hub, install the extra 'hub':"
            " pip install 'ssp[hub]'"
        ) from error
    wanted = [*_DATA, *(f"*{suffix}" for suffix in PICKLES if pickles)]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # of the network, the hub or the disk
        reason = str(error).strip().partition("\n")[0]
        message = f"there is no folder {name}, and the Hugging Face hub does not give it: {reason}"
        raise ArtifactError(message) from error
