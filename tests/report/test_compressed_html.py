"""card.html: every candidate in the picture with its reason, the budget, the proof; text of others stays text."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from edgeclip.errors import BundleError
from edgeclip.evaluate.paired import Drop
from edgeclip.report.compressed import sentences
from edgeclip.report.compressed_html import axis, bars, picture, render, write_card_html
from edgeclip.results import Interval
from edgeclip.tune.record import SCHEMA, Budget, Candidate, Compressed, Failure, Figures, LayerLoss, Proof, Tried


def lost(high: float) -> Drop:
    return Drop(**dict.fromkeys(("r1", "r5", "r10"), Interval(value=0.25, low=-0.5, high=high)))


def tried(kind: str, ms: float, mb: float, high: float | None, outcome: str) -> Tried:
    return Tried(
        candidate=Candidate(image=kind, text=kind, threads=1),
        figures=Figures(image_ms=ms, text_ms=ms, size_mb=mb, rss_mb=100, open_ms=50),
        drop=None if high is None else lost(high),
        outcome=outcome,
    )


CANDIDATES = [
    tried("int8", 2, 8, 0.75, "chosen"),
    tried("int4", 3, 5, 2.5, "may lose 2.50 points, over 1"),
    tried("fp32", 4, 30, None, "2.0 times slower than <b>int8</b>"),
]


@pytest.fixture
def card() -> Compressed:
    return Compressed(
        schema=SCHEMA,
        model="<script>alert(1)</script>",
        budget=Budget(
            max_image_ms=1.0, max_text_ms=None, max_size_mb=100.0, max_rss_mb=None, max_open_ms=None, max_drop=1.0
        ),
        winner=CANDIDATES[0].candidate,
        figures=CANDIDATES[0].figures,
        teacher=CANDIDATES[2].figures,
        proof=Proof(
            data="pictures", truth="captions", chosen_on=500, reported_on=400, seed=0, drop=lost(0.8), same_first=None
        ),
        over={"max_image_ms": 2.0},
        relax={"max_image_ms": 2.0},
        tried=CANDIDATES,
        failures=[Failure(trial="text fp16, threads 1", reason="needed more than 64 MB")],
        contests=[],
        sensitivity={
            "image": {
                "blocks.0.mlp.fc2": LayerLoss(cosine=2e-4, ranking=1e-3),
                "blocks.1.mlp.fc2": LayerLoss(cosine=1e-4, ranking=4e-3),
            },
            "text": {},
        },
        environment={"processor": "a processor", "threads": 1},
        seconds=12.0,
        trials=20,
    )


def test_the_picture_has_every_candidate_and_its_reason(card: Compressed):
    page = render(card)
    svg = re.search(r'<svg role="img">.*?</svg>\s*</div>|<svg role="img">.*?\n</svg>', page, re.DOTALL)
    circles = ElementTree.fromstring(svg[0]).findall("circle")  # noqa: S314 - our own
    assert [circle.get("class") for circle in circles] == ["mark refused", "mark teacher", "mark winner"]
    assert "may lose 2.50 points, over 1" in circles[0].find("title").text
    for words in (
        "needed more than 64 MB",
        "400 pairs of pictures",
        "chosen on 500",
        "blocks.0.mlp.fc2",
        "a processor",
    ):
        assert words in " ".join(page.split())
    assert "<script>" not in page
    assert "<b>" not in page


def test_faster_is_left_smaller_is_low_and_the_front_joins_what_nothing_beats(card: Compressed):
    found = picture(card)
    int4, fp32, int8 = found.points
    assert int8.x < int4.x < fp32.x
    assert int4.y > int8.y > fp32.y
    assert found.front == f"{int8.x},{int8.y}"  # int4 is smaller, and may lose too much
    assert [value for _, value in found.ms.ticks] == ["2", "3", "4"]
    assert [value for _, value in found.mb.ticks] == ["5", "10", "20"]
    kept = replace(card, budget=replace(card.budget, max_drop=3.0))
    assert picture(kept).front == f"{int8.x},{int8.y} {int4.x},{int4.y}"


def test_an_axis_has_ticks_within_it_however_short_it_is():
    for low, high in ((2.0, 2.0), (1.0, 1000.0), (0.011, 0.013), (95.0, 140.0)):
        found = axis([low, high])
        assert all(0 <= place <= 100 for place, _ in found.ticks)
        assert len(found.ticks) <= 8
    assert [value for _, value in axis([1.0, 1000.0]).ticks] == ["1", "10", "100", "1000"]


def test_both_bars_of_a_layer_are_parts_of_the_longest(card: Compressed):
    first, second = bars(card.sensitivity["image"])
    assert (first.cosine, first.ranking) == pytest.approx((100, 25))
    assert (second.cosine, second.ranking) == pytest.approx((50, 100))


def test_what_is_slower_than_the_teacher_is_not_so_many_times_faster(card: Compressed):
    slow = replace(card, teacher=replace(card.figures, text_ms=1.0, size_mb=4.0))
    assert "images 1.0 times faster, texts 2.0 times slower, 2.0 times larger" in " ".join(sentences(slow))


def test_what_is_over_the_budget_and_what_would_do_are_said(card: Compressed):
    said = " ".join(sentences(card))
    assert "Nothing fits; the closest: int8; 1 thread" in said
    assert "Over the budget: max_image_ms 2, with a limit of 1; all else being kept, max_image_ms 2 would do." in said
    assert "images 2.0 times faster, texts 2.0 times faster, 3.8 times smaller" in said


def test_a_bundle_of_export_has_no_such_card(bundles: dict[str, Path]):
    with pytest.raises(BundleError, match="edgeclip compress"):
        write_card_html(bundles["int8"])
