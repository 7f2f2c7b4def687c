"""The report is one document: it asks nothing, escapes everything, and is the same every time."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from report.made import HEADLINES, TS, Made, reading, studies, study, tables, whole
from report.page import Page
from undertow.cli import output
from undertow.report import words
from undertow.report.ink import EVIDENCE, config
from undertow.report.pictures import PICTURES
from undertow.report.write import html

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"quoted\" 'twice' & more",
    "名前-レバレッジ-%{x}-{y}",
    "<a href='https://elsewhere.example'>come</a>",
    "\N{RIGHT-TO-LEFT OVERRIDE}evil\x01",
    "",
    "x" * 300,
    "x" * 299 + "y",
)


@pytest.fixture(scope="module")
def document() -> str:
    return html(whole())


@pytest.fixture(scope="module")
def page(document: str) -> Page:
    return Page(document)


def own(document: str) -> str:
    """The document without plotly, which speaks of many addresses and is asked for none."""
    return re.sub(r'<script id="plotly">.*?</script>', "", document, flags=re.S)


def test_nothing_is_loaded_from_anywhere(document: str, page: Page) -> None:
    assert "://" not in own(document)
    for element in page.elements:
        assert "src" not in element.attributes
        assert element.attributes.get("href", "#").startswith("#")
        assert element.name not in {"link", "img", "iframe", "object", "embed", "form", "base"}
        assert not [name for name in element.attributes if name.startswith("on")]
    (policy,) = [e.attributes["content"] for e in page.all("meta")
                 if e.attributes.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    assert "default-src 'none'" in policy
    assert "connect" not in policy
    assert not re.search(r"\b(fetch|import|XMLHttpRequest|WebSocket)\b\s*\(", own(document))


def test_plotly_comes_once_and_only_for_figures(document: str) -> None:
    assert document.count('<script id="plotly">') == 1
    bare = html(replace(whole(), studies=(study("tandem.matrix", {}),)))
    assert '<script id="plotly">' not in bare
    assert len(bare) < 80_000


def test_figures_are_never_offered_to_a_cloud(page: Page) -> None:
    assert page.held("config") == config()
    assert config()["showSendToCloud"] is False
    assert config()["displaylogo"] is False
    assert not set(config()) & {"plotlyServerURL", "modeBarButtonsToAdd"}


def test_the_same_assessment_gives_the_same_bytes(document: str) -> None:
    assert html(whole()) == document


def test_names_are_unique_and_every_link_leads_somewhere(page: Page) -> None:
    names = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(names) == len(set(names))
    for element in page.elements:
        assert element.attributes.get("href", "#main")[1:] in names
        for reference in ("aria-labelledby", "data-from", "data-figure"):
            if reference in element.attributes:
                assert element.attributes[reference] in names


def test_studies_of_one_name_keep_apart() -> None:
    twins = Page(html(Made(studies=(*studies()[:1], *studies()[:1]))))
    names = [e.attributes["id"] for e in twins.elements if "id" in e.attributes]
    assert len(names) == len(set(names))
    assert {"tandem.leverage", "tandem.leverage-2"} <= set(names)


def test_headings_step_down_one_at_a_time(page: Page) -> None:
    levels = [int(e.name[1]) for e in page.elements if re.fullmatch(r"h[1-6]", e.name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(b - a for a, b in pairwise(levels)) == 1


def test_controls_and_regions_have_names(page: Page) -> None:
    for button in page.all("button"):
        assert button.attributes.get("aria-label") or button.text
        assert button.attributes["type"] == "button"
    for element in page.elements:
        if element.attributes.get("role") in {"img", "region"} or element.name in {"nav", "aside"}:
            assert element.attributes.get("aria-label") or element.attributes.get("aria-labelledby")
    assert page.all("html")[0].attributes["lang"] == "en"
    assert page.all("a", class_="skip")[0].attributes["href"] == "#main"
    assert page.at("main").name == "main"
    for head in page.all("th"):
        assert head.attributes["scope"] in {"col", "row"}


def test_every_headline_shows_value_unit_band_evidence_instant_and_definition(page: Page) -> None:
    cards = page.all("article", class_="card")
    assert len(cards) == len(HEADLINES)
    for card, shown in zip(cards, HEADLINES, strict=True):
        assert (words.number(shown.value) if shown.value is not None else "none") in card.text
        assert words.unit(shown.unit) in card.text
        assert words.band(shown.low, shown.high, shown.level) in card.text
        assert "2026-11-01" in card.text
        assert shown.inputs_hash in card.text
        assert card.attributes["title"] == shown.definition
        assert [d for d in card.inside if d.name == "details" and shown.definition in d.text]
        (badge,) = [e for e in page.all("span", class_="badge") if _within(e, card)]
        assert badge.text == shown.evidence
        assert shown.evidence in badge.attributes["class"]


def _within(element: object, above: object) -> bool:
    while element is not None:
        if element is above:
            return True
        element = element.parent
    return False


def test_a_band_is_drawn_to_scale_from_zero() -> None:
    shown = reading("fall", 0.5, "fraction", low=0.25, high=1.0, level=0.9)
    page = Page(html(Made(headlines=(shown,))))
    (rail,) = page.all("line", class_="rail")
    left, right = float(rail.attributes["x1"]), float(rail.attributes["x2"])
    (zero,) = page.all("line", class_="zero")
    (bar,) = page.all("rect")
    (dot,) = page.all("circle")
    length = right - left
    assert float(zero.attributes["x1"]) == left
    assert float(bar.attributes["x"]) == pytest.approx(left + 0.25 * length)
    assert float(bar.attributes["width"]) == pytest.approx(0.75 * length)
    assert float(dot.attributes["cx"]) == pytest.approx(left + 0.5 * length)


def test_each_study_says_its_verdict_first_and_when_it_misleads(page: Page) -> None:
    for found in studies():
        chapter = page.at(found.name)
        text = chapter.text
        assert 0 <= text.index(found.says[0]) < text.index(found.says[1])
        assert (
            text.index(found.says[1]) < text.index(found.how_to_read) < text.index(found.misleads)
        )
        assert found.says[0] in page.at("glance").text
    pages = [e.attributes["id"] for e in page.all("section", class_="page")]
    assert pages == ["glance", "tandem.page", "crowding.page", "interconnection.page"]


def test_series_that_were_left_out_stand_with_their_reasons() -> None:
    why = {"gmx": "21 rows of growth; 60 are needed", "venus": "flat"}
    page = Page(html(Made(studies=(study("tandem.matrix", {}, left_out=why),))))
    for series, reason in why.items():
        assert [row for row in page.all("tr") if series in row.text and reason in row.text]


def test_downloads_hold_the_whole_table() -> None:
    every = tables([f"node{i}" for i in range(9)])["tandem.matrix"]["pairs"]
    page = Page(html(Made(studies=(study("tandem.matrix", {"pairs": every}),))))
    held = page.held("data.tandem.matrix.pairs")
    assert_frame_equal(pl.read_csv(io.StringIO(held["csv"]), schema=every.schema), every)
    assert held["kinds"] == ["text"] * 3 + ["number"] * 7
    (table,) = [t for t in page.all("table") if "table pairs" in t.attributes["title"]]
    assert table.text.count("less revaluation") + table.text.count("raw") <= 20
    assert "The first 20 of 108 rows" in page.at("tandem.matrix").text


def test_downloads_keep_nulls_quotes_lists_and_instants() -> None:
    odd = pl.DataFrame(
        {
            "name": ["", None, 'say "so"', "a,b\nc"],
            "value": [1 / 3, None, 3e-9, float("nan")],
            "sure": [True, None, False, True],
            "who": [["a", "b"], [], None, ["c"]],
            "ts": pl.Series([TS, None, TS + 1, 0]).cast(pl.Datetime("us", "UTC")),
        }
    )
    held = Page(html(Made(studies=(study("a.b", {"odd": odd}),)))).held("data.a.b.odd")
    back = pl.read_csv(io.StringIO(held["csv"]))
    assert back["name"].to_list() == odd["name"].to_list()
    assert back["value"][0] == 1 / 3
    assert back["value"][2] == 3e-9
    assert back["sure"].to_list() == odd["sure"].to_list()
    assert back["who"][0] == "a; b"
    assert back["ts"].to_list()[:3] == [
        "2026-11-01T00:00:00.000000Z", None, "2026-11-01T00:00:00.000001Z",
    ]  # fmt: skip
    assert held["kinds"] == ["text", "number", "flag", "text", "text"]


def test_hostile_text_stays_text() -> None:
    bad = HOSTILE[0]
    assessment = replace(
        whole(HOSTILE),
        title=f"{bad}</title>",
        notes=HOSTILE,
        provenance={bad: bad, "inner": {HOSTILE[1]: HOSTILE[4]}},
        quality=pl.DataFrame({bad: list(HOSTILE)}),
        headlines=(reading(HOSTILE[1], 1.0, bad, definition=HOSTILE[2], subject=bad),),
        studies=(*studies(HOSTILE), study(bad, {bad: pl.DataFrame({bad: [bad]})}, title=bad,
                                          says=(bad,), left_out={bad: HOSTILE[1]})),
    )  # fmt: skip
    document = html(assessment)
    page = Page(document)  # which would meet elements that are not ours
    assert not page.all("img")
    assert not page.all("b")
    scripts = [s.attributes.get("id") for s in page.all("script") if "type" not in s.attributes]
    assert scripts == ["plotly", None]
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in document
    assert "\x01" not in own(document)
    assert bad in page.all("h1")[0].text
    for block in page.all("script", type="application/json"):
        json.loads(block.text)
        assert not set("<>&") & set(block.text)


def test_lone_surrogates_do_not_keep_the_page_from_being_written() -> None:
    html(Made(title="half \ud800 a letter", notes=("\udfff",))).encode("utf-8")


def test_an_empty_assessment_says_so_in_every_part() -> None:
    page = Page(html(Made()))
    told = page.at("glance")
    assert len([p for p in page.all("p", class_="empty") if _within(p, told)]) == 4
    assert "Nothing was measured" in page.words
    assert "Where it comes from" in page.words


def test_a_study_without_readings_tables_or_words_is_a_page_of_its_own() -> None:
    bare = study("crowding.nothing", {}, readings=(), says=(), how_to_read="", misleads="")
    text = Page(html(Made(studies=(bare,)))).at("crowding.nothing").text
    assert "No reading of this study could be published." in text
    assert "This study keeps no tables." in text
    assert "Nothing was said." in text


def test_a_table_without_rows_is_told_from_one_that_is_missing() -> None:
    page = Page(html(Made(studies=(study("a.b", {"none": pl.DataFrame({"x": []})}),))))
    assert "none: no rows." in page.words


def test_data_that_is_late_or_refused_is_marked_with_more_than_a_colour(page: Page) -> None:
    marked = [cell.text for cell in page.all("td", class_="warn")]
    assert marked == ["▲ 12", "▲ yes"]


def test_evidence_has_three_colours_that_figures_use_for_nothing_else(
    document: str, page: Page
) -> None:
    assert len(set(EVIDENCE.values())) == 3
    figures = [
        page.held(place.attributes["data-figure"]) for place in page.all("div", class_="plot")
    ]
    every = [trace for figure in figures for trace in figure["data"]]
    for word, color in EVIDENCE.items():
        wearing = [trace for trace in every if color in json.dumps(trace)]
        assert all(trace["name"].endswith(f", {word}") for trace in wearing)
        assert document.count(color) == 1 + len(wearing)  # 1: where the page gives it its meaning
    assert len(page.all("figure", class_="modelled")) == len(PICTURES)


def test_the_first_page_reads_as_it_did(page: Page) -> None:
    said = page.words.split("\nTandem: leverage that moves together")[0]
    kept = Path(__file__).with_name("first_page.txt")
    assert said + "\n" == kept.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "value", [0.0, 1e-7, 0.01234567, -3.14159, 99.999, 12345.6, -4.2e7, 6e12, 2e17]
)
def test_numbers_are_written_as_on_the_terminal(value: float) -> None:
    assert words.number(value) == output.number(value)
    assert words.cell("x", value) == output.cell(value)


def test_spans_instants_and_units_are_written_for_people() -> None:
    for us in (None, 1, 10**6, 90 * 10**6, 7_200_000_000, 90 * 86_400_000_000):
        assert words.span(us) == output.span(us)
    assert words.instant(TS) == "2026-11-01"
    assert words.instant(TS + 3_661_000_000) == "2026-11-01 01:01:01Z"
    assert words.instant(TS + 60_000_000) == "2026-11-01 00:01Z"
    assert words.instant(None) == "-"
    assert words.measured(0.5, "usd") == "0.5\xa0USD"
    assert words.measured(0.5, "1") == "0.5"
    assert words.measured(2.0, "1/year") == "2 a year"
    assert words.measured(None, "usd") == "none"
    assert words.band(0.1, 0.25, 0.975) == "0.1 to 0.25 at 97.5\xa0%"
    assert words.band(None, None, None) == "no band"
    assert words.cell("window_us", 7_200_000_000) == "2 h"
    assert words.cell("account", 1234567) == "1234567"
    assert words.cell("rows", 1234567) == "1,234,567"
    assert words.cell("start", TS) == "2026-11-01"
    assert words.cell("start", 12) == "12"
    assert words.number(float("nan")) == "-"


@pytest.mark.parametrize(
    ("name", "subject", "said"),
    [
        ("tandem.common_factor", "", "One common factor"),
        ("mes", "ETH", "Marginal expected shortfall · ETH"),
        ("delta_covar", "", "Delta CoVaR"),
        ("capital_shortfall_usd", "okx", "Capital shortfall · okx"),
        ("crowding.effective_holders", "", "Effective holders"),
        ("crowding.var_of_dcc", "", "VaR of DCC"),
        ("a.", "", "A."),
        ("", "", ""),
    ],
)
def test_a_reading_has_a_title_without_its_family(name: str, subject: str, said: str) -> None:
    assert words.title(name, subject) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "< 1e-16"), (1.5e-287, "< 1e-16"), (0.04, "0.04"), (None, "-")]
)
def test_a_chance_too_small_to_be_told_is_not_told_as_nothing(
    value: float | None, said: str
) -> None:
    assert words.chance(value) == said
    for column in ("p_value", "p_corrected", "symmetry_p", "p"):
        assert words.cell(column, value) == said
        assert said in output.render(pl.DataFrame({column: [value]}, schema={column: pl.Float64}))
    assert words.cell("share", 0.0) == "0"


def test_no_line_ends_between_a_number_and_its_unit() -> None:
    assert words.tied("42 % of 3.20 B USD in 5 d, 2 dozen") == (
        "42\xa0% of 3.20\xa0B USD in 5\xa0d, 2 dozen"
    )


def test_each_definition_stands_once_in_its_study() -> None:
    one = [reading("net", 0.1, "1", subject=node, definition="the same") for node in "abc"]
    two = [reading("spill", 0.1, "1", subject=way, definition=f"by {way}") for way in ("x", "y")]
    page = Page(html(Made(studies=(study("tandem.none", {}, readings=(*one, *two)),))))
    (terms,) = page.all("dl", class_="terms")
    assert terms.text.count("the same") == 1
    assert [e.text for e in terms.inside if e.name == "dt"] == [
        "Net net", "Spill · x spill", "Spill · y spill",
    ]  # fmt: skip


def test_the_title_tells_one_report_from_the_next(page: Page) -> None:
    assert page.all("title")[0].text == "Systemic leverage · demo/lake · 2026-11-01"


def test_who_runs_no_script_or_follows_a_lost_link_is_told(page: Page) -> None:
    assert "no figures" in page.all("noscript")[0].text
    assert "hidden" in page.at("lost").attributes
    assert "no such place" in page.at("lost").text


def test_a_figure_of_what_cannot_be_told_says_so() -> None:
    of = "tandem.attribution"
    blind = study(of, tables()[of], says=("Why it moves together cannot be told.",))
    page = Page(html(Made(studies=(blind,))))
    (caption,) = page.all("figcaption")
    assert "The verdict is that this cannot be told" in caption.text
    assert "What moves leverage" not in caption.text


def test_ages_say_from_when_they_are_counted_and_the_whole_table_is_shown() -> None:
    quality = pl.DataFrame({"table": [f"t{k}" for k in range(30)], "rows": range(30)})
    found = Made(quality=quality, ages_from=TS)
    page = Page(html(found))
    assert "what it lacked; as old as at 2026-11-01" in page.words
    assert "t29" in page.words
