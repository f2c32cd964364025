"""Plain tables for the terminal."""

from collections.abc import Sequence


def render(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Columns as wide as their widest cell, two spaces apart; numbers to the right."""
    texts = [list(header)] if header else []
    texts += [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = [all(isinstance(cell, int | float) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        for line in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1e-2 else f"{cell:.4f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
