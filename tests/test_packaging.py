from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("folder", ["kernels", "server", "clients", "protos"])
def test_a_folder_of_packages_is_none_itself(folder: str) -> None:
    """The transformers library imports whatever module is called `kernels`."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()
