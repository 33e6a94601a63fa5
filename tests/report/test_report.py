"""The terminal table, the explanations and the HTML file, from results made by hand."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from edgeclip.errors import ConfigError
from edgeclip.report.explain import headlines, times, why_distillation_drifts, why_engines_differ
from edgeclip.report.html import render_report, write_report
from edgeclip.report.plots import curve, overview
from edgeclip.report.published import PUBLISHED
from edgeclip.report.results_table import WHOLE_WIDTH, results_table
from edgeclip.report.row_order import in_order
from edgeclip.report.terminal import print_results
from edgeclip.results import (
    DataInfo,
    EngineTime,
    Findings,
    GradientReach,
    Interval,
    Latency,
    Percentiles,
    Recalls,
    Results,
    Row,
    Standard,
    SweepPoint,
    TestImage,
    read_results,
    write_results,
)


def recalls(r1: float) -> Recalls:
    values = [Interval(value=v, low=v - 5, high=v + 5) for v in (r1, r1 + 1, r1 + 2)]
    return Recalls(r1=values[0], r5=values[1], r10=values[2])


def row(name: str, variant: str, r1: float, milliseconds: float, size: float) -> Row:
    time = Percentiles(p50=milliseconds, p95=milliseconds * 1.5)
    return Row(
        name=name,
        variant=variant,
        precision="fp32" if name == "TEACHER" else "int8",
        params=1000,
        size_mb=size,
        peak_rss_mb=300.0,
        i2t=recalls(r1),
        t2i=recalls(r1 + 2),
        latency_ms=Latency(image=time, text=time, i2t=time, t2i=time),
        caption=f"<b>{variant}</b> & co",
        standard=Standard(captions=50, i2t=recalls(r1), t2i=recalls(r1)),
    )


@pytest.fixture
def results() -> Results:
    reach = {"tensors": 80, "parameters": 5000, "gradient_cosine": None}
    return Results(
        schema=1,
        environment={"machine": "x86_64", "cpu_flags": ["avx2"], "threads": 2, "python": "3.11"},
        settings={"model": "builtin:tabletop", "alpha": 0.3, "temperature": 1.0, "batch_size": 32, "lr": 1e-4},
        data=DataInfo(name="builtin:tabletop", pairs=50, seed=0, train=40, validation=10, bad_images=["x.jpg: broken"]),
        rows=[
            row("TEACHER", "fp32", 80.0, 10.0, 40.0),
            row("STUDENT", "int8, qnnpack", 79.0, 25.0, 10.0),
            row("STUDENT", "int8, x86", 78.0, 5.0, 10.0),
            row("DISTILLED", "int8 then distilled, qnnpack", 79.0, 25.0, 10.0),
            row("DISTILLED", "distilled then int8, x86", 40.0, 5.0, 10.0),
        ],
        losses={"distilled then int8": [3.0, 2.0, 1.0]},
        sweep=[SweepPoint(alpha=0.1, i2t_r1=50.0, t2i_r1=51.0)],
        test_image=TestImage(name="a.jpg", jpeg_base64="AAAA", captions=["own caption"]),
        findings=Findings(
            engines=[
                EngineTime(engine=e, rows=50, inputs=256, outputs=1024, milliseconds=ms)
                for e, ms in (("float", 1.0), ("qnnpack", 4.0), ("x86", 0.5))
            ],
            gradients=[
                GradientReach(
                    variant="int8 then distilled",
                    reached=["log_logit_scale"],
                    reached_parameters=1,
                    drift_cosine=1.0,
                    **reach,
                ),
                GradientReach(
                    variant="distilled then int8",
                    reached=["a", "b", "c", "d"],
                    reached_parameters=5000,
                    drift_cosine=0.7,
                    **reach,
                ),
            ],
            int8_layers=43,
            int8_parameters=4000,
            float_parameters=1000,
        ),
    )


def test_results_round_trip_and_keep_their_names(tmp_path: Path, results: Results):
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results
    raw = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert raw["schema"] == 1
    first = raw["rows"][0]
    assert {"name", "variant", "precision", "params", "size_mb", "peak_rss_mb", "i2t", "t2i", "caption"} <= set(first)
    assert set(first["i2t"]["r1"]) == {"value", "low", "high"}
    assert set(first["latency_ms"]) == {"image", "text", "i2t", "t2i"}


@pytest.mark.parametrize("change", [{"schema": 2}, {"surprise": 1}])
def test_other_results_are_refused(tmp_path: Path, results: Results, change: dict):
    (tmp_path / "r.json").write_bytes(msgspec.json.encode(msgspec.to_builtins(results) | change))
    with pytest.raises(ConfigError, match=r"r\.json"):
        read_results(tmp_path / "r.json")


def test_headlines_say_what_the_figures_say(results: Results):
    lines = headlines(results)
    assert "4.0 times smaller" in lines[0]
    assert "2.5 times slower" in lines[0]
    assert "2.0 times faster" in lines[1]
    assert "-2.0 points" in lines[1]
    assert "-40.0 points" in lines[-1]
    assert times(1.0) == "1.0 times slower"


def test_a_bundle_is_no_other_kernel_library(results: Results):
    bundle = row("STUDENT", "post-training int8", 80.0, 2.0, 8.0)
    rows = [*results.rows[:2], bundle]  # as where QNNPACK is the fastest engine
    assert not any("kernel library" in line for line in headlines(msgspec.structs.replace(results, rows=rows)))


@pytest.fixture
def with_edgeclip(results: Results) -> Results:
    """With the bundle's row last, and one of a name that nobody knows before it."""
    rows = [
        *results.rows,
        row("<script>alert(1)</script>", '"><img src=x onerror=y> [b]', 60.0, 5.0, 5.0),
        row("EDGECLIP", "int8 bundle", 79.5, 2.5, 8.0),
    ]
    return msgspec.structs.replace(results, rows=rows)


def test_what_edgeclip_gives_is_said_first(results: Results, with_edgeclip: Results):
    first, *others = headlines(with_edgeclip)
    assert first == (
        "EDGECLIP is 5.0 times smaller than the TEACHER and encodes an image 4.0 times faster, at a mean R@1 of "
        "80.5 % (TEACHER: 81.0 %)."
    )
    assert others == headlines(results)
    assert f'<p class="lead">{first}</p>' in render_report(with_edgeclip)
    assert headlines(msgspec.structs.replace(results, rows=results.rows[1:])) == []


def test_rows_stand_in_one_order_everywhere(with_edgeclip: Results):
    rows = in_order(with_edgeclip.rows)
    assert [r.name for r in rows] == [
        "TEACHER",
        "EDGECLIP",
        *["STUDENT"] * 2,
        *["DISTILLED"] * 2,
        with_edgeclip.rows[5].name,
    ]
    page = parsed(render_report(with_edgeclip))
    pictured = [title.rpartition(":")[0] for title in page.titles if "%" not in title and "Loss" not in title]
    assert pictured == [f"{r.name}, {r.variant}" for r in rows for _ in ("MB", "ms")]
    recalls = [title for title in page.titles if "%" in title]
    assert recalls[1] == "EDGECLIP, int8 bundle: 80.5 %, 75.5 to 85.5"
    assert len(recalls) == len(rows)
    models = [text for text in page.row_heads if text in {r.name for r in rows}]
    published = ["TEACHER", "STUDENT", "DISTILLED"]
    assert sorted(models) == sorted([*published, *3 * [r.name for r in rows]])  # table, other protocol, choices
    assert models[:3] == ["TEACHER", "TEACHER", "EDGECLIP"]


def test_hostile_names_stay_text(with_edgeclip: Results):
    page = parsed(render_report(with_edgeclip))
    assert "script" not in page.tags
    assert page.tags.count("img") == 1


def test_the_picture_is_to_scale(results: Results):
    picture = overview(results.rows)
    assert [line.size for line in picture.lines] == [100, 25, 25, 25, 25]
    assert [line.time for line in picture.lines] == [40, 100, 20, 100, 20]
    assert (picture.low, picture.high) == (30, 90)  # 41 - 5 and 81 + 5
    assert picture.teacher == picture.lines[0].position.value == pytest.approx(85)
    assert picture.lines[-1].position.low == pytest.approx(10)


def test_curves_fill_their_box():
    drawn = curve("label", [3.0, 2.0, 1.0])
    assert drawn.raw == drawn.average == "0.0,0.0 50.0,50.0 100.0,100.0"
    assert curve("flat", [2.0, 2.0]).raw == "0.0,0.0 100.0,0.0"
    assert curve("one", [2.0]).raw == "0.0,0.0"
    long = curve("long", [float(n) for n in range(1000, 0, -1)])
    assert (long.first, long.last) == pytest.approx((995.5, 5.5))
    assert len(long.raw.split()) <= 400


def test_a_distillation_is_told_apart_from_a_reproduction(results: Results):
    recipe = {"name": "half", "weights": {"feature": 1.0}, "qad_share": 0.25, "train": {"batch_size": 64, "lr": 1e-3}}
    distilled = msgspec.structs.replace(
        results,
        settings={"model": "builtin:tabletop", "recipe": recipe},
        findings=None,
        rows=[
            row("TEACHER", "fp32 bundle", 80.0, 10.0, 40.0),
            row("STUDENT", "post-training int8", 79.0, 5.0, 10.0),
            row("DISTILLED", "half, int8", 78.0, 20.0, 5.0),
        ],
    )
    assert headlines(distilled) == [
        "DISTILLED is 8.0 times smaller than the TEACHER and encodes an image 2.0 times slower, at a mean R@1 of "
        "79.0 % (TEACHER: 81.0 %).",
        "STUDENT, post-training int8: -1.0 points of R@1 from the teacher, 4.0 times smaller, and encodes an image "
        "2.0 times faster.",
    ]
    page = render_report(distilled)
    assert "A CLIP distilled: half" in page
    assert "feature 1; 25 % of each stage as int8 computes; batches of 64, peak rate 0.001." in page
    assert "A lightweight CLIP, reproduced" in render_report(results)
    assert "alpha 0.3, temperature 1.0, batches of 32, peak rate 0.0001." in render_report(results)


def test_explanations_follow_the_figures(results: Results):
    engines = " ".join(why_engines_differ(results, results.findings))
    assert "4.0 times slower than float's" in engines
    assert "smaller is not faster" in engines
    faster = [
        EngineTime(engine=e, rows=1, inputs=1, outputs=1, milliseconds=m) for e, m in (("float", 4.0), ("qnnpack", 1.0))
    ]
    engines = " ".join(why_engines_differ(results, msgspec.structs.replace(results.findings, engines=faster)))
    assert "4.0 times faster" in engines
    assert "smaller is not faster" not in engines
    first, second = why_distillation_drifts(results, results.findings)
    assert "1 of 80 tensors" in first
    assert "only the temperature is trained" in first
    assert "0.7000" in second
    assert "temperature" not in second


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.titles: list[str] = []
        self.row_heads: list[str] = []
        self.into: list[str] | None = None

    def handle_starttag(self, tag, attrs):
        if tag == "title" and "svg" in self.tags:
            self.into = self.titles
        elif tag == "th" and ("scope", "row") in attrs:
            self.into = self.row_heads
        self.tags.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href") and value and tag != "use"]

    def handle_data(self, data):
        if self.into is not None:
            self.into.append(data)
            self.into = None


def parsed(text: str) -> Collector:
    page = Collector()
    page.feed(text)
    return page


def test_the_page_needs_no_network_and_escapes_captions(tmp_path: Path, results: Results):
    write_report(results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = parsed(text)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3 * len(results.rows) + len(results.losses)
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []
    assert not re.search(r"url\((?!#)", text)
    assert "&lt;b&gt;fp32&lt;/b&gt; &amp; co" in text
    assert "<b>fp32</b>" not in text
    for published in PUBLISHED:
        assert str(published.i2t_r1) in text
    assert "605.2" in text
    assert "x.jpg: broken" in text


def test_a_report_without_the_optional_parts(results: Results):
    bare = msgspec.structs.replace(
        results,
        losses={},
        sweep=[],
        test_image=None,
        findings=None,
        rows=[msgspec.structs.replace(r, standard=None) for r in results.rows],
    )
    text = render_report(bare)
    assert "Loss curves" not in text
    assert "The table" in text


def test_the_terminal_shows_every_row(results: Results, capsys: pytest.CaptureFixture):
    print_results(results)
    out = capsys.readouterr().out
    assert out.count("TEACHER") == 1
    assert "80.0 [75, 85]" in out
    assert "x.jpg: broken" in out
    assert "alpha" in out


@pytest.mark.parametrize("width", [80, WHOLE_WIDTH])
def test_the_terminal_table_fits(with_edgeclip: Results, width: int):
    output = io.StringIO()
    table = results_table(with_edgeclip, width)
    Console(width=width, file=output).print(table)
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert table.row_count == len(with_edgeclip.rows)
    assert text.index("TEACHER") < text.index("EDGECLIP") < text.index("STUDENT") < text.index("DISTILLED")
    assert "…" not in text
    assert ("RSS" in text) == (width == WHOLE_WIDTH)


def test_the_terminal_begins_with_what_edgeclip_gives(with_edgeclip: Results, capsys: pytest.CaptureFixture):
    print_results(with_edgeclip)
    assert capsys.readouterr().out.startswith("EDGECLIP is 5.0 times smaller")
