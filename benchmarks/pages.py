"""The pages of a service over many rows, in a browser: when they are painted, and what they ask for is there.

    python -m benchmarks.pages [--rows 1000000] [--few 1000] [--tokens 16] [--times 3]

Starts a service, with made-up rows and signals of real shape for all of them in a folder that goes afterwards
(1 GiB for a million rows), and runs Q-Tuning and another method over them. Chromium then visits, each time
with nothing in its cache and signed in afresh: the run's page until it is painted, its plane is drawn, its
report is there; a lasso around all until rows are listed; the slider for another ratio, the first time and
then; the dataset's page, the first page, a row, and the two runs side by side. Baseline: the same of `--few`
rows, at the same service, in turns; and what is promised of a million rows, or of 50,000 and less.

With --url and --token the rows are measured by a service that runs already.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import polars as pl
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.figures import figure
from benchmarks.processes import memory
from benchmarks.reprune import made_up_shard
from datapruner.corpora.corpus import Corpus
from datapruner.measuring.measure import proxy_for
from datapruner.measuring.signal_cache import SignalCache, shard_name
from datapruner.measuring.workers import shards
from datapruner.request.config import Measuring
from tests.browser import CHROMIUM
from tests.served import serving
from tests.tiny_model import save_tiny_model

METHODS = ("qtuning", "ppl")
PART = 50_000
SHARD_ROWS = 8192
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
TOPICS = ("history", "code", "maths", "cooking")
PATIENCE = 300.0
PAINTED = """() => new Promise((done) => {
  const seen = ({ name, startTime }) => name === "first-contentful-paint" && done(startTime / 1e3);
  const paints = new PerformanceObserver((list) => list.getEntries().forEach(seen));
  paints.observe({ type: "paint", buffered: true });
})"""
MOVED = """(share) => new Promise((done) => {
  const slider = document.getElementById("try-share");
  const began = performance.now();
  const said = new MutationObserver(() => done((performance.now() - began) / 1e3));
  said.observe(document.getElementById("try-said"), { childList: true });
  slider.value = share;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
})"""
PROMISED = {"run page, first paint": {50_000: 1.0, 1_000_000: 3.0}, "slider, first time": {50_000: 1.0}}
"""Seconds, up to so many rows."""


@dataclass(frozen=True)
class Service:
    """`home` and `process` are of a service that the benchmark started."""

    url: str
    token: str
    model: Path
    home: Path | None = None
    process: int | None = None

    @property
    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)


@dataclass(frozen=True)
class Made:
    """A dataset, and its runs by the methods."""

    dataset: str
    runs: Sequence[str]
    rows: int


def written(path: Path, rows: int, tokens: int) -> Path:
    """Parquet with Alpaca-like rows, each different, of which one column is nested; `PART` rows at a time."""
    rng = np.random.default_rng(0)
    writer = None
    for first in range(0, rows, PART):
        numbers = np.arange(first, min(first + PART, rows))
        count = len(numbers)
        words = [pl.Series(f"w{at}", rng.choice(WORDS, count)) for at in range(tokens)]
        about = pl.DataFrame({"topic": rng.choice(TOPICS, count), "rating": rng.random(count)})
        part = pl.DataFrame(words).select(
            instruction=pl.format("question {}", pl.Series(numbers)),
            output=pl.concat_str(pl.all(), pl.lit(pl.Series(numbers)), separator=" "),
            about=pl.lit(about.to_struct()),
        )
        table = part.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None, rows
    writer.close()
    return path


def with_signals(service: Service, tokens: int) -> None:
    """Made-up signals for every sample of the service's corpora that has none."""
    assert service.home is not None
    [project] = (service.home / "files" / "projects").iterdir()
    key = proxy_for(measuring(service.model), service.home, ("cpu",)).key
    cache = SignalCache(project, key)
    cache.create()
    rng = np.random.default_rng(0)
    for corpus in project.glob("corpora/*/*/*.duckdb"):
        with Corpus(corpus) as opened:
            ids = opened.sample_index()["sample_id"].to_list()
        for start in range(0, len(ids), SHARD_ROWS):
            part = ids[start : start + SHARD_ROWS]
            shards.publish(cache.folder / shard_name(part), made_up_shard(part, tokens, rng, False))


def measuring(model: Path) -> Measuring:
    return Measuring(model=str(model), dtype="float32")


def made(service: Service, rows: int, tokens: int, folder: Path) -> Made:
    """A dataset of so many rows, with signals where the service is ours, and runs over it."""
    name = f"pages_{secrets.token_hex(4)}"
    source = written(folder / f"{name}.parquet", rows, tokens)
    with service.client as client:
        if service.home is None:
            asked: dict[str, Any] = {"name": name, "rows": pl.read_parquet(source).to_dicts()}
        else:
            asked = {"name": name, "source": {"kind": "path", "path": str(source)}}
        ended(client, client.post("/v1/datasets", json=asked))
        if service.home is not None:
            with_signals(service, tokens)
        settings = measuring(service.model).model_dump(mode="json", exclude_unset=True)
        runs = []
        for method in METHODS:
            body = {"dataset": name, "method": method, "keep": 0.5, "measuring": settings}
            job = ended(client, client.post("/v1/runs", json=body))
            runs.append(str(job["result"]["run_id"]))
            run = client.get(f"/v1/runs/{runs[-1]}").json()
            assert service.home is None or run["measured"] == 0, run
        return Made(str(run["dataset_id"]), runs, rows)


def ended(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The job that was asked for, once it has succeeded."""
    place = answer.raise_for_status().headers["Location"]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found: dict[str, Any] = client.get(place).json()
        if found["state"] == "succeeded":
            return found
        assert found["state"] in ("queued", "running"), found
        time.sleep(0.1)
    raise TimeoutError(place)


@contextlib.contextmanager
def visiting(browser: Browser, service: Service) -> Iterator[Page]:
    """A tab with nothing in its cache, signed in."""
    context = browser.new_context(base_url=service.url, reduced_motion="reduce")
    context.set_default_timeout(1000 * PATIENCE)
    try:
        page = context.new_page()
        page.goto("/sign-in")
        page.get_by_label("Token").fill(service.token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{service.url}/")
        yield page
    finally:
        context.close()


def painted(page: Page, path: str) -> float:
    """Seconds until something of a page is seen."""
    page.goto(path, wait_until="commit")
    return float(page.evaluate(PAINTED))


def look(browser: Browser, service: Service, of: Made) -> dict[str, float]:
    """Seconds of everything that is waited for, once."""
    took: dict[str, float] = {}
    with visiting(browser, service) as page:
        began = time.perf_counter()
        took["run page, first paint"] = painted(page, f"/runs/{of.runs[0]}")
        page.wait_for_selector("#plane-said:has-text('samples')")
        took["run page, plane drawn"] = time.perf_counter() - began
        page.wait_for_selector("h2:has-text('From ')")
        took["run page, report"] = time.perf_counter() - began
        box = page.locator("#plane .nsewdrag").first.bounding_box()
        assert box is not None
        left, top = box["x"] + 2, box["y"] + 2
        right, bottom = left + box["width"] - 4, top + box["height"] - 4
        page.mouse.move(left, top)
        page.mouse.down()
        for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
            page.mouse.move(x, y, steps=5)
        began = time.perf_counter()
        page.mouse.up()
        page.wait_for_selector("#found tbody tr")
        took["lasso, rows listed"] = time.perf_counter() - began
        for name, share in (("first time", "30"), ("then", "40")):
            took[f"slider, {name}"] = page.evaluate(MOVED, share)
            assert "response tokens" in page.locator("#try-said").inner_text()
    pages = {
        "dataset's page": f"/datasets/{of.dataset}",
        "first page": "/",
        "row": f"/runs/{of.runs[0]}/rows/{of.rows // 2}",
        "two runs": f"/runs/{of.runs[0]}/compare/{of.runs[1]}",
    }
    for name, path in pages.items():
        with visiting(browser, service) as page:
            began = time.perf_counter()
            took[f"{name}, first paint"] = painted(page, path)
            if name == "two runs":
                page.wait_for_selector("#scores-title")
                took["two runs, compared"] = time.perf_counter() - began
    return took


def measure(service: Service, rows: int, few: int, tokens: int, times: int, folder: Path) -> None:
    sizes = {size: made(service, size, tokens, folder) for size in (few, rows)}
    own = None if service.process is None else memory(service.process)
    took: Mapping[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(times):
            for size, of in sizes.items():
                took[size].append(look(browser, service, of))
        browser.close()
    for name in took[rows][0]:
        value, baseline = (median(each[name] for each in took[size]) for size in (rows, few))
        figure(f"{name}, {rows:,} rows", value, against=f"{few:,} rows", baseline=baseline)
        for most, seconds in PROMISED.get(name, {}).items():
            if rows <= most:
                what = f"{name}, {rows:,} rows"
                figure(what, value, against="what is promised", baseline=seconds, at_most=1)
                break
    if own is not None:
        assert service.process is not None
        figure(
            f"peak memory of the web process, {rows:,} rows",
            memory(service.process)["peak"],
            against="before any page",
            baseline=own["peak"],
            unit="MiB",
        )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=16, help="response tokens of a row, on average")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a folder; by default the tiny model of the tests")
    parser.add_argument("--url", help="of a service that runs already, with --token and --model")
    parser.add_argument("--token", default="")
    given = parser.parse_args(argv)
    if CHROMIUM is None:
        parser.error("there is no chromium to look with")
    sizes = given.rows, given.few, given.tokens, given.times
    with tempfile.TemporaryDirectory(prefix="datapruner-pages-") as name:
        folder = Path(name)
        if given.url:
            measure(Service(given.url, given.token, given.model), *sizes, folder)
            return
        model = given.model or save_tiny_model(folder / "model")
        settings = {"import_roots": folder, "allowed_models": model}
        with serving(folder / "service", model.resolve(), **settings) as server:
            measure(Service(server.url, server.token, model, server.home, server.process.pid), *sizes, folder)


if __name__ == "__main__":
    main()
