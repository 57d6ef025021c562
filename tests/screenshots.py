"""The pictures of docs/pages.md, taken of the real service with the rows of the demo.

python -m tests.screenshots [--home HOME]

HOME has the default proxy model (`datapruner models pull smollm2-135m`), by default where the command line
keeps it. Needs chromium.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from datapruner.home import made_home
from tests.browser import CHROMIUM
from tests.served import WAIT, Server, serving

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "screenshots"
ROWS = ROOT / "examples" / "instructions.jsonl"
SIZE = {"width": 1200, "height": 860}
SQL = "SELECT n_response_tokens, ln(ppl) AS mean_nll, status\nFROM demo.sample_scores\nORDER BY row"


def prepared(server: Server) -> dict[str, str]:
    """The addresses of what is shown, by the pictures' names."""
    with ROWS.open("rb") as file:
        sent = server.client.post("/v1/datasets", data={"name": "demo"}, files={"file": file}, headers=WAIT)
    dataset = sent.raise_for_status().json()["id"]
    made = []
    for method, keep in (("qtuning", 0.25), ("ppl", 0.3)):
        asked = {"dataset": "demo", "method": method, "keep": keep}
        run = server.client.post("/v1/runs", json=asked, headers=WAIT).raise_for_status()
        made.append(run.json()["id"])
    return {
        "home": "/",
        "dataset": f"/datasets/{dataset}",
        "run": f"/runs/{made[0]}",
        "row": f"/runs/{made[0]}/rows/17",
        "compare": f"/runs/{made[0]}/compare/{made[1]}",
    }


def take(page: Page, addresses: dict[str, str]) -> None:
    """A picture of each, by light; of a run by dark too."""
    for name, address in addresses.items():
        for scheme in ("light", "dark") if name == "run" else ("light",):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(address)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(1000)  # plots appear after their numbers
            page.screenshot(path=FOLDER / f"{name}{'-dark' if scheme == 'dark' else ''}.png")


def ask(page: Page) -> None:
    """A picture of a statement, down to the end of its plot."""
    page.emulate_media(color_scheme="light")
    page.goto("/sql")
    statement = page.get_by_label("One SELECT")
    statement.fill(SQL)
    statement.press("Control+Enter")
    page.get_by_text("Plot", exact=True).click()
    page.locator("#plot .point").first.wait_for()
    page.evaluate("scrollTo(0, 0)")
    plot = page.locator("#plot").bounding_box()
    assert plot is not None
    seen = {"x": 0, "y": 0, "width": SIZE["width"], "height": plot["y"] + plot["height"] + 16}
    page.screenshot(path=FOLDER / "sql.png", full_page=True, clip=seen)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, default=None)
    home = made_home(parser.parse_args(argv).home)
    if CHROMIUM is None:
        raise SystemExit("no chromium to take pictures with")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "home")
        own.mkdir()
        (own / "models").symlink_to(home / "models")
        with serving(own, own / "models") as server, sync_playwright() as playwright:
            addresses = prepared(server)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(base_url=server.url, viewport=SIZE)  # type: ignore[arg-type]
            page.goto("/sign-in")
            page.get_by_label("Token").fill(server.token)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{server.url}/")
            take(page, addresses)
            ask(page)
            browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
