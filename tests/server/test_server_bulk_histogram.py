"""What scrapers see of it is what they would see of the library's."""

import random

from prometheus_client import CollectorRegistry, Histogram

from ssp_server.bulk_histogram import BulkHistogram

EDGES = (0.001, 0.01, 0.5)


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (sample.name, sample.labels["model"], sample.labels.get("le", "")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def test_many_observations_at_once_count_as_one_by_one() -> None:
    bulk, single = CollectorRegistry(), CollectorRegistry()
    ours = BulkHistogram("gap_seconds", "Between two", EDGES, bulk)
    theirs = Histogram("gap_seconds", "Between two", ("model",), buckets=EDGES, registry=single)
    draws = random.Random(0)
    for model in ("a", "b"):
        for seconds in (*EDGES, 0.0, 0.002, 7.0, draws.random()):
            times = draws.randrange(1, 70)
            ours.labels(model).observe(seconds, times)
            for _ in range(times):
                theirs.labels(model).observe(seconds)
    expected, found = samples(single), samples(bulk)
    assert found.keys() == expected.keys()
    assert all(abs(found[key] - expected[key]) < 1e-9 * max(1, expected[key]) for key in expected)
