"""A pytest plugin: a real browser that visits the pages of the real service.

Whatever test it is of, a page may have no error in its console, ask nothing of another host, and must pass
axe's rules where the test says that it is `usable`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    FloatRect,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.served import Server
from tests.waiting import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_COLOURS = {"runOnly": ["color-contrast"]}
_NARROW: ViewportSize = {"width": 390, "height": 844}
_UNSEEN = """() => {
  const before = document.activeElement, unseen = [];
  const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  for (const each of document.querySelectorAll(all)) {
    if (!each.checkVisibility() || each.disabled) continue;
    each.focus({ preventScroll: true });
    const { outlineStyle, outlineWidth } = getComputedStyle(each);
    const isSeen = outlineStyle !== "none" && outlineWidth !== "0px";
    if (document.activeElement !== each || !isSeen) unseen.push(each.outerHTML.slice(0, 200));
  }
  before.focus({ preventScroll: true });
  return unseen;
}"""
"""What cannot be focused, or does not show that it is."""
_TOO_WIDE = """() => {
  const { scrollWidth } = document.documentElement;
  if (scrollWidth <= innerWidth) return [];
  const all = [...document.querySelectorAll("body *")];
  const wide = all.filter((each) => each.getBoundingClientRect().right > innerWidth + 1);
  return wide.map((each) => each.outerHTML.slice(0, 200));
}"""
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}


@dataclass
class Visit:
    """A tab of a browser at a service. `wrong`: what its console complained of, and requests elsewhere.

    `expected`: parts of complaints that are meant to come.
    """

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", self._asked_back)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and not request.url.startswith(self.url):
            self.wrong.append(f"asked for {request.url}")

    def _asked_back(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> Page:
        """The page at a path of the service."""
        self.page.goto(f"{self.url}{path}")
        return self.page

    def sign_in(self, token: str) -> Page:
        """The first page, as whoever holds the token."""
        self.open("/sign-in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.url}/")
        return self.page

    def plane(self) -> FloatRect:
        """Where the plane of a run's page is drawn between its axes, in pixels."""
        expect(self.page.locator("#plane-said")).to_contain_text("samples")
        box = self.page.locator("#plane .plot-container .bglayer rect, #plane .nsewdrag").first.bounding_box()
        assert box is not None
        return box

    def outline(self) -> None:
        """Draw a line around all that the plane of a run's page shows."""
        box = self.plane()
        left, right = box["x"] + 2, box["x"] + box["width"] - 2
        top, bottom = box["y"] + 2, box["y"] + box["height"] - 2
        self.page.mouse.move(left, top)
        self.page.mouse.down()
        for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
            self.page.mouse.move(x, y, steps=5)
        self.page.mouse.up()

    def usable(self) -> None:
        """Assert that axe finds nothing in what the tab shows, by dark in its colours; that what has the
        keyboard is outlined; and that no narrow screen needs to be scrolled sideways."""
        schemes: tuple[tuple[Literal["dark", "light"], Any], ...] = (("dark", _COLOURS), ("light", _RULES))
        for scheme, options in schemes:
            self.page.emulate_media(color_scheme=scheme)
            found = Axe().run(self.page, options=options)
            assert not found.response["violations"], (scheme, found.generate_report())
        self.page.keyboard.press("Shift")  # the keyboard is in use: from here on focus is to be seen
        assert not self.page.evaluate(_UNSEEN)
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size(_NARROW)
        assert not self.page.evaluate(_TOO_WIDE)
        self.page.set_viewport_size(size)

    def fine(self) -> None:
        """Assert that nothing went wrong but what is expected."""
        left = [each for each in self.wrong if not any(part in each for part in self.expected)]
        assert not left


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module: while it is open, its thread can run no other event loop."""
    if CHROMIUM is None:
        pytest.skip("no chromium to look at pages with: install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser, server: Server) -> Iterator[Visit]:
    """A fresh tab, without a cookie, at the tests' service."""
    context = browser.new_context(base_url=server.url, reduced_motion="reduce")
    visit = Visit(context.new_page(), server.url)
    try:
        yield visit
        visit.fine()
    finally:
        context.close()


@pytest.fixture
def admin(visit: Visit, server: Server) -> Visit:
    """The same, signed in as the admin of the default project."""
    visit.sign_in(server.token)
    return visit
