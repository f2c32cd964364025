from pathlib import Path

import pytest

from recipes.python_stdlib import corpus


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_sides_join_files_each_ended_by_a_separator(stdlib: corpus.Corpus) -> None:
    assert stdlib.heldout == b"".join(content + b"\x00" for _, content in stdlib.heldout_files)
    assert stdlib.train.endswith(b"\x00")
    assert stdlib.train.count(b"\x00") + len(stdlib.heldout_files) == stdlib.num_files


def test_about_a_twentieth_is_held_out(stdlib: corpus.Corpus) -> None:
    assert 0.03 < len(stdlib.heldout_files) / stdlib.num_files < 0.08
    assert 0.03 < len(stdlib.heldout) / len(stdlib.train + stdlib.heldout) < 0.08


def test_no_file_is_on_both_sides(stdlib: corpus.Corpus) -> None:
    train = set(stdlib.train.split(b"\x00"))
    assert not train & {content for _, content in stdlib.heldout_files}


def test_loading_again_gives_the_same(stdlib: corpus.Corpus) -> None:
    assert corpus.load() == stdlib


def test_split_depends_on_the_path_alone() -> None:
    assert corpus.is_heldout("functools.py")
    assert corpus.is_heldout("asyncio/events.py")
    assert not corpus.is_heldout("asyncio/locks.py")


def test_only_distinct_source_files_of_the_library_count(tmp_path: Path) -> None:
    kept = {"b.py": b"b = 1\n", "a/z.py": "é = 1\n".encode(), "functools.py": b"f = 1\n"}
    dropped = {
        "c.py": b"b = 1\n",
        "empty.py": b"",
        "latin.py": b"# \xe9\n",
        "notes.txt": b"n",
        "test/t.py": b"1",
        "a/tests/t.py": b"2",
        "idlelib/idle_test/t.py": b"3",
        "site-packages/p.py": b"4",
        "config-3.11-x86_64-linux-gnu/python-config.py": b"5",
        "_sysconfigdata__linux_x86_64-linux-gnu.py": b"6",
        "sitecustomize.py": b"7",
    }
    loaded = corpus.load(write(tmp_path, kept | dropped))
    assert loaded.train == "é = 1\n\0b = 1\n\0".encode()
    assert loaded.heldout_files == (("functools.py", b"f = 1\n"),)
    assert loaded.num_files == 3


@pytest.mark.parametrize("change", [{"b.py": b"c = 1\n"}, {"d.py": b"d = 1\n"}])
def test_checksum_tells_any_change(tmp_path: Path, change: dict[str, bytes]) -> None:
    files = {"b.py": b"b = 1\n", "functools.py": b"f = 1\n"}
    before = corpus.load(write(tmp_path / "before", files))
    after = corpus.load(write(tmp_path / "after", files | change))
    assert before.checksum != after.checksum


def test_missing_library_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install the standard library"):
        corpus.load(tmp_path)
