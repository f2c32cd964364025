"""Numerical series from files: a table each, a row a step, a column a number."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssp_runtime.errors import suggestion
from ssp_runtime.training.data import read_text

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Vectors (L, d_input), oldest first, and the vector wanted after each (L, d_output)."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def d_input(self) -> int:
        return self.inputs.shape[1]

    @property
    def d_output(self) -> int:
        return self.targets.shape[1]

    def until(self, step: int) -> Self:
        return type(self)(inputs=self.inputs[:step], targets=self.targets[:step])


@dataclass(frozen=True)
class _Table:
    path: Path
    columns: tuple[str, ...]
    rows: Rows


def read_series(paths: Sequence[Path], targets: Sequence[str] = ()) -> list[Series]:
    """Series of .npy files, (steps, columns) or several (series, steps, columns), and of CSV files, all alike.

    `targets` are columns, by name or counted from 0, that are wanted at each step from the other columns. Without them
    the whole next row is.

    Raises:
        ValueError: a file holds no such table, or lacks a column.
    """
    tables = [table for path in paths for table in _read(path)]
    for table in tables:
        if table.columns != tables[0].columns:
            raise ValueError(f"{table.path} has not the columns of {tables[0].path}: {', '.join(table.columns)}")
    return [_apart(table, targets) if targets else _one_step_on(table) for table in tables]


def _one_step_on(table: _Table) -> Series:
    rows = torch.from_numpy(table.rows)
    return Series(inputs=rows[:-1], targets=rows[1:])


def _apart(table: _Table, targets: Sequence[str]) -> Series:
    wanted = [_number(table, name) for name in targets]
    given = [number for number in range(len(table.columns)) if number not in wanted]
    if not given:
        raise ValueError(f"every column of {table.path} is a target: leave one to tell them from")
    rows = torch.from_numpy(table.rows)
    return Series(inputs=rows[:, given], targets=rows[:, wanted])


def _number(table: _Table, name: str) -> int:
    if name not in table.columns:
        raise ValueError(f"{table.path} has no column {name!r}{suggestion(name, table.columns)}")
    return table.columns.index(name)


def _read(path: Path) -> list[_Table]:
    columns, tables = _read_npy(path) if path.suffix == ".npy" else _read_csv(path)
    for rows in tables:
        if len(rows) < 2:
            raise ValueError(f"{path} holds a series of {len(rows)} steps; at least two are needed")
        if not np.isfinite(rows).all():
            at = int((~np.isfinite(rows)).any(1).argmax())
            raise ValueError(f"{path} holds NaN or an infinite value in its row {at + 1}: leave such rows out")
    return [_Table(path, columns or tuple(map(str, range(rows.shape[1]))), rows) for rows in tables]


def _read_npy(path: Path) -> tuple[tuple[str, ...], list[Rows]]:
    try:
        array = np.load(path, allow_pickle=False).astype(np.float64)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers: {error}") from error
    if array.ndim not in (1, 2, 3):
        raise ValueError(f"{path} has shape {array.shape}; (steps, columns) or (series, steps, columns) is wanted")
    return (), list(array) if array.ndim == 3 else [array.reshape(len(array), -1)]


def _read_csv(path: Path) -> tuple[tuple[str, ...], list[Rows]]:
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    first = tuple(cell.strip() for row in csv.reader(lines[:1]) for cell in row)
    columns = () if any(map(_is_number, first)) else first
    lines = lines[1:] if columns else lines
    try:
        rows = np.loadtxt(lines, delimiter=",", quotechar='"', ndmin=2) if lines else np.empty((0, len(first)))
    except ValueError as error:
        raise ValueError(f"{path} is no table of numbers: {error}") from error
    if columns and len(columns) != rows.shape[1]:
        raise ValueError(f"{path} names {len(columns)} columns and has {rows.shape[1]}")
    return columns, [rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
