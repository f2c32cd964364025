"""Amounts of the last seconds."""

from ssp_server.recent import Recent


def test_amounts_count_for_five_seconds() -> None:
    now = 100.0
    recent = Recent(lambda: now)
    assert recent.per_second == recent.mean == 0
    for amount in (10, 30):
        recent.add(amount)
    now = 104.0
    recent.add(20)
    assert recent.per_second == 60 / 4 and recent.mean == 20
    now = 104.5
    assert recent.per_second == 60 / 4.5
    now = 105.0
    assert recent.per_second == 20 / 4 and recent.mean == 20
    recent.add(60)
    assert recent.per_second == 80 / 4 and recent.mean == 40
    now = 1000.0
    assert recent.per_second == recent.mean == 0
