from __future__ import annotations

from pathlib import Path

import pytest
from store_files import PRICES, PRICES_HEADER, SECOND, STAMP, T0, prices_frame, reference_lake

from undertow.errors import NoRun
from undertow.store import Lake, ingest_tables
from undertow.store.quality import table_quality

HOUR = 3600 * SECOND


def test_rows_age_gaps_sources_and_rejects_of_every_table(tmp_path: Path) -> None:
    lake = reference_lake(tmp_path)
    path = tmp_path / "prices.csv"
    path.write_text(PRICES + f"{STAMP},lend:XXX,oracle,1,feed\n")
    ingest_tables(lake, [path], now=T0 + SECOND)
    later = [(T0 + HOUR, "lend:ETH", 1.0), (T0 + 5 * HOUR, "lend:ETH", 2.0)]
    lake.write({"prices": prices_frame(later, "other")}, kind="ingest", now=T0 + 2 * SECOND)
    quality = table_quality(lake, now=T0 + 6 * HOUR)
    found = {row["table"]: row for row in quality.iter_rows(named=True)}
    prices = found["prices"]
    assert prices["rows"] == 4
    assert prices["age_us"] == HOUR
    assert prices["largest_gap_us"] == 4 * HOUR
    assert prices["gap_in"] == "lend:ETH oracle"
    assert prices["sources"] == 2
    assert (prices["rejects"], prices["reject_share"]) == (1, 0.2)
    assert found["venues"]["largest_gap_us"] is None
    assert found["positions"]["rows"] == 0
    assert found["positions"]["age_us"] is None
    assert found["positions"]["reject_share"] is None
    early = table_quality(lake, now=T0 + HOUR, as_of=T0 + SECOND)
    assert early.filter(early["table"] == "prices")["rows"].to_list() == [2]


def test_a_row_brought_twice_counts_once(tmp_path: Path) -> None:
    lake = reference_lake(tmp_path)
    rows = prices_frame([(T0, "lend:ETH", 1.0)])
    more = prices_frame([(T0, "lend:ETH", 1.0), (T0 + 1, "lend:ETH", 1.0)])
    for frame in (rows, more):
        lake.write({"prices": frame}, kind="ingest", now=T0)
    quality = table_quality(lake, now=T0)
    assert quality.filter(quality["table"] == "prices")["rows"].to_list() == [2]


def test_a_lake_without_runs_has_no_quality(tmp_path: Path) -> None:
    with pytest.raises(NoRun):
        table_quality(Lake.create(tmp_path / "lake"), now=T0)
    assert PRICES.startswith(PRICES_HEADER)
