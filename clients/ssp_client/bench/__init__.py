"""Measures a running server; the words are those of the field: TTFT, TPOT, ITL, goodput."""
