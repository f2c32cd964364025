"""What the recipes' tests read: the corpus of this interpreter and the promoter data, where it is."""

import os

import pytest

from recipes.promoters import data
from recipes.python_stdlib import corpus


@pytest.fixture(scope="session")
def stdlib() -> corpus.Corpus:
    return corpus.load()


@pytest.fixture(scope="session")
def promoters() -> data.Promoters:
    folder = data.local_folder()
    if not all((folder / source.name).exists() for source in data.SOURCES):
        reason = f"no promoter data in {folder}: set SSP_DATA to the folder that holds dna_promoters"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return data.load()
