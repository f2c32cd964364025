"""Series from files, and what is said of files that hold none."""

from pathlib import Path

import numpy as np
import pytest

from ssp_runtime.training.series import read_series

TABLE = np.arange(12, dtype=np.float64).reshape(4, 3)


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.fixture(params=["npy", "csv", "csv with names"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "npy":
        return npy(tmp_path / "table.npy", TABLE.astype(np.int16))
    names = ["0, 1 ,2" if request.param == "csv" else 'a,"b",c']
    rows = [",".join(map(str, row)) for row in TABLE]
    return csv(tmp_path / "table.csv", "\n".join((names if "names" in request.param else []) + rows) + "\n\n")


def test_the_next_row_is_wanted(table: Path) -> None:
    (series,) = read_series([table])
    assert series.inputs.tolist() == TABLE[:-1].tolist()
    assert series.targets.tolist() == TABLE[1:].tolist()


def test_columns_are_wanted_at_their_own_step_and_not_given(table: Path) -> None:
    names = ("c", "a") if table.read_bytes().startswith(b"a") else ("2", "0")
    (series,) = read_series([table], names)
    assert series.inputs.tolist() == TABLE[:, [1]].tolist()
    assert series.targets.tolist() == TABLE[:, [2, 0]].tolist()


def test_an_array_of_three_dimensions_is_several_series(tmp_path: Path) -> None:
    flat, deep = npy(tmp_path / "flat.npy", np.arange(5.0)), npy(tmp_path / "deep.npy", np.ones((2, 7, 1)))
    assert [len(series) for series in read_series([flat, deep])] == [4, 6, 6]


@pytest.mark.parametrize(
    ("text", "targets", "message"),
    [
        ("1,2\n3,x\n", (), "no table of numbers: could not convert string 'x'"),
        ("1,2\n3\n", (), "no table of numbers"),
        ("1,\n3,4\n", (), "no table of numbers"),
        ("a,b\n1,2,3\n4,5,6\n", (), "names 2 columns and has 3"),
        ("a,b\n", (), "a series of 0 steps; at least two"),
        ("1,2\n3,nan\n", (), "NaN or an infinite value in its row 2"),
        ("a,b\n1,2\n3,4\n", ("c",), "no column 'c': there are a, b"),
        ("a,b\n1,2\n3,4\n", ("a", "b"), "every column of .* is a target"),
    ],
)
def test_a_file_without_a_series_is_named(text: str, targets: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_series([csv(tmp_path / "table.csv", text)], targets)


def test_an_array_that_is_none_of_numbers_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no array of numbers"):
        read_series([npy(tmp_path / "words.npy", np.array(["word"]))])
    with pytest.raises(ValueError, match="no array of numbers"):
        read_series([csv(tmp_path / "text.npy", "text")])
    with pytest.raises(ValueError, match=r"has shape \(1, 1, 1, 1\)"):
        read_series([npy(tmp_path / "deep.npy", np.ones((1, 1, 1, 1)))])


def test_files_of_other_columns_do_not_go_together(tmp_path: Path) -> None:
    ordered, swapped = csv(tmp_path / "a.csv", "x,y\n1,2\n3,4\n"), csv(tmp_path / "b.csv", "y,x\n1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"b\.csv has not the columns of .*a\.csv: y, x"):
        read_series([ordered, swapped])
