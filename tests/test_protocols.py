"""The three protocols beside each other, and the pooled one against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from jointnet.evaluation import (
    OVERALL,
    PROTOCOLS,
    SceneCounts,
    protocol_rows,
    protocol_table,
    summarise,
)
from jointnet.metrics import Counts, PatchCounts, count

# A dense scene, a nearly empty one and one of another city without any building.
RECORDS = [
    SceneCounts("a1", "a", None, Counts(80, 10, 10, 0), patches=PatchCounts(2, 4, Counts(3, 1, 0))),
    SceneCounts("a2", "a", None, Counts(1, 1, 2, 96), patches=PatchCounts(0, 4, Counts())),
    SceneCounts("b1", "b", None, Counts(0, 0, 0, 100), patches=PatchCounts(0, 4, Counts())),
]


def row_of(rows, protocol, place=OVERALL) -> dict:
    (row,) = [row for row in rows if (row["protocol"], row["place"]) == (protocol, place)]
    return row


def test_every_protocol_has_its_own_figure_by_hand():
    rows = protocol_rows(RECORDS)
    assert row_of(rows, "pooled")["iou"] == 81 / 104
    assert row_of(rows, "pooled")["accuracy"] == 277 / 300
    assert row_of(rows, "mean")["iou"] == pytest.approx((0.8 + 0.25 + 1) / 3)
    assert row_of(rows, "mean")["accuracy"] == pytest.approx((0.8 + 0.97 + 1) / 3)
    assert row_of(rows, "patches")["iou"] == 3 / 4
    assert [row_of(rows, p)["units"] for p in PROTOCOLS] == [3, 3, 2]
    assert row_of(rows, "mean", "a")["iou"] == pytest.approx((0.8 + 0.25) / 2)
    assert row_of(rows, "pooled", "b")["iou"] == 1.0


def test_the_pooled_rows_are_those_of_the_summary():
    pooled = [row for row in protocol_rows(RECORDS) if row["protocol"] == "pooled"]
    for row, summary in zip(pooled, summarise(RECORDS), strict=True):
        assert all(row[name] == summary[name] for name in ("place", "iou", "f1", "accuracy"))


def test_nothing_that_enters_is_no_figure():
    rows = protocol_rows([*RECORDS[2:], SceneCounts("c1", "c", None, Counts())])
    assert row_of(rows, "patches")["iou"] is None and row_of(rows, "patches")["units"] == 0
    for protocol in PROTOCOLS:
        assert row_of(rows, protocol, "c")["iou"] is None
    # A scene that is all void is no scene that was predicted right.
    assert row_of(rows, "mean")["units"] == 1
    lines = protocol_table(rows).splitlines()
    assert lines[3].split()[-2:] == ["-", "-"]


def test_the_table_names_every_protocol_per_threshold():
    records = [SceneCounts(r.name, r.place, 0.6, r.counts, patches=r.patches) for r in RECORDS]
    lines = protocol_table(protocol_rows([*records, *RECORDS])).splitlines()
    assert len(lines) == 7 and len({len(line) for line in lines}) == 1
    for line, words in zip(lines[4:], PROTOCOLS.values(), strict=True):
        assert line.split()[0] == "0.6" and words in line
    assert lines[4].split()[-4:] == ["3", "scenes", "0.779", "0.923"]
    assert lines[6].split()[-4:] == ["2", "patches", "0.750", "0.750"]


@pytest.mark.parametrize("seed", range(3))
def test_pooled_is_what_scikit_learn_says_of_all_pixels_together(seed):
    random = np.random.default_rng(seed)
    pairs = [
        random.choice([0, 1, 255], (2, *random.integers(1, 60, 2)), p=[0.8, 0.15, 0.05])
        for _ in range(5)
    ]
    # One city without buildings.
    pairs.append(np.zeros((2, 20, 20), np.int64))
    records = [
        SceneCounts(f"s{n}", f"city{n % 2}", None, count(*pair.astype(np.uint8)))
        for n, pair in enumerate(pairs)
    ]
    rows = protocol_rows(records)
    for place, members in ((OVERALL, pairs), ("city0", pairs[::2]), ("city1", pairs[1::2])):
        truth, found = (np.concatenate([pair[side].ravel() for pair in members]) for side in (0, 1))
        valid = (truth != 255) & (found != 255)
        row = row_of(rows, "pooled", place)
        assert row["iou"] == jaccard_score(truth[valid], found[valid])
        assert row["accuracy"] == accuracy_score(truth[valid], found[valid])
