"""The table of objects: per place and overall, per threshold."""

import numpy as np

from jointnet.evaluation import SceneCounts, object_rows, object_table
from jointnet.metrics import Counts
from preprocessing.objects import ObjectCounts


def record(name, place, threshold, *counts, **others) -> SceneCounts:
    hits = np.arange(counts[2]) < counts[0]
    objects = ObjectCounts(*counts, boundary_px=3, hits=hits, **others)
    return SceneCounts(name, place, threshold, Counts(), objects=objects)


RECORDS = [
    record("a1", "a", 0.5, 1, 2, 4, scores=np.linspace(0.9, 0.6, 4), polis_px=0.5),
    record("b1", "b", 0.5, 0, 2, 0),
    record("a1", "a", 0.6, 1, 2, 1, scores=np.array([0.9]), polis_px=0.5),
    record("b1", "b", 0.6, 0, 2, 0),
]


def test_rows_hold_places_and_overall_of_every_threshold():
    rows = object_rows(RECORDS)
    assert [(row["threshold"], row["place"], row["scenes"]) for row in rows] == [
        *((0.5, "a", 1), (0.5, "b", 1), (0.5, "overall", 2)),
        *((0.6, "a", 1), (0.6, "b", 1), (0.6, "overall", 2)),
    ]
    assert [row["precision"] for row in rows[:3]] == [1 / 4, 0, 1 / 4]
    assert rows[2]["recall"] == 1 / 4 and rows[2]["f1"] == 2 / 8
    assert rows[5]["precision"] == 1 and rows[5]["count_error"] == -3 / 4


def test_the_table_says_what_objects_and_boundaries_are():
    lines = object_table(object_rows(RECORDS)).splitlines()
    assert len(lines) == 8 and len({len(line) for line in lines[:-1]}) == 1
    assert lines[1].split()[:7] == ["0.5", "a", "2", "4", "0.250", "0.500", "0.333"]
    # No pair to take PoLiS of, no raster on the ground, all missed.
    assert lines[2].split()[-4:] == ["-", "-", "-1.000", "+0.000"]
    assert "IoU of 0.5" in lines[-1] and "boundaries 3 px wide" in lines[-1]
