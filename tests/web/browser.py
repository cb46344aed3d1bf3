"""Debian's Chromium in a namespace, driven by playwright, and pages that note what they did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Error, Locator, Page, Playwright, expect

from tests.netns.topology import DEADLINE, Topology

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",  # it refuses to run as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = DEADLINE * 1000
"""Milliseconds, as playwright counts."""

STICKING_OUT = """() => [...document.querySelectorAll("body *")]
  .filter(node => !node.closest(".hidden, .skip, datalist") && node.getClientRects().length > 0)
  .filter(node => node.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(node => node.outerHTML.slice(0, 80))"""
"""What sticks out at the right: JavaScript for ``evaluate``."""

POINTS_NEAR_THE_AXIS = """(canvas, [r, g, b]) => {
  const {width, height} = canvas, band = Math.round(height * 0.3);
  const copy = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, height - band, width, band);
  let points = 0;
  for (let i = 0; i < data.length; i += 4) {
    const near = Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 30;
    if (near && data[i + 3] > 200) points += 1;
  }
  return points;
}"""
"""How many points of a plot's lower edge have a colour: JavaScript for ``evaluate``."""


@contextlib.contextmanager
def chromium(
    playwright: Playwright, net: Topology, namespace: str = "gw", *flags: str
) -> Iterator[Browser]:
    """A browser that sees the network as a program in ``namespace`` does."""
    wrapper = net.directory / f"chromium-{namespace}"
    command = " ".join(net.command(namespace, CHROMIUM))
    wrapper.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    wrapper.chmod(0o755)
    browser = playwright.chromium.launch(
        executable_path=wrapper, headless=True, args=[*FLAGS, *flags]
    )
    try:
        yield browser
    finally:
        browser.close()


class Visit:
    """A page in a context of its own, with all that it asked for and complained about."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.url = url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._context = browser.new_context(
            **({"viewport": {"width": 1400, "height": 900}} | context)
        )
        self._context.set_default_timeout(PATIENCE)
        self.page: Page = self._context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            where = message.location.get("url", "")
            self.complaints.append(f"{message.type}: {message.text} {where}")

    def open(self) -> Page:
        """Load the page and wait until samples come."""
        self.page.goto(self.url)
        try:
            self.shows("#connection", "Live")
        except AssertionError as error:
            # a page that does not come alive says why in its console, if anywhere
            raise AssertionError(f"{error}\n{self.complaints}\n{self.requests}") from None
        self.page.wait_for_selector(".pool")
        return self.page

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def shows(self, selector: str, text: Any) -> None:
        """Wait for an element to have a text in it (a string, or a regular expression)."""
        expect(self.page.locator(selector)).to_contain_text(text, timeout=PATIENCE)

    def has(self, selector: str, attribute: str, value: Any) -> None:
        """Wait for an element to have an attribute."""
        expect(self.page.locator(selector)).to_have_attribute(attribute, value, timeout=PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(Error):
            self._context.close()
