"""Whether everything has room, whatever the font, the width and the numbers.

The fonts are the widest and the narrowest of Debian's common sans-serif ones (a line of the flow
table in each, per letter: DejaVu Sans 0.51 of the font's size, Inter 0.48, Noto Sans 0.48, Open Sans
0.47, Liberation Sans, which is as wide as Arial, 0.46). They are asked for by name, so that a run says
the same on every machine; `scripts/setup` installs both.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.web.browser import PATIENCE, STICKING_OUT, Visit
from tests.web.crowded import crowd

Begin = Callable[..., Visit]

WIDTHS = [320, 340, 360, 480, 600, 768, 1000, 1180, 1200, 1240, 1265, 1400, 1600, 1900]
WIDEST = "DejaVu Sans"

# What holds more than there is room for. A text that ends in an ellipsis has all of it as its title.
OVERFULL = """() => [...document.querySelectorAll("body *:not(th button)")]
  .filter(node => node.clientWidth > 0 && !node.closest(".hidden, .skip, datalist, select, input, svg"))
  .filter(node => node.scrollWidth > node.clientWidth)
  .filter(node => !(getComputedStyle(node).textOverflow === "ellipsis" && node.title))
  .map(node => `${node.tagName}.${node.className}#${node.id}: ${node.scrollWidth} > ${node.clientWidth}, `
    + node.textContent.trim().slice(0, 40))"""

# Notes in `cutOff` what is written beyond the edges of a plot.
WATCH_PLOTS = """
window.cutOff = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
  const size = this.measureText(text).width;
  const left = {left: x, center: x - size / 2, right: x - size}[this.textAlign];
  if (left < 0 || left + size > this.canvas.clientWidth) cutOff.push(text);
  write.call(this, text, x, y);
};"""


def shown_in(page: Page, selector: str) -> set[str]:
    """The fonts that the browser has really taken for a part of the page."""
    tools = page.context.new_cdp_session(page)
    tools.send("DOM.enable")
    tools.send("CSS.enable")
    root = tools.send("DOM.getDocument")["root"]["nodeId"]
    node = tools.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
    fonts = tools.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
    tools.detach()
    return {font["familyName"] for font in fonts}


def open_in(font: str, seen: Visit) -> Page:
    page = seen.open()
    page.evaluate("name => document.documentElement.style.setProperty('--sans', `'${name}'`)", font)
    expect(seen.find("#flow-rows tr").first).to_be_visible(timeout=PATIENCE)
    assert shown_in(page, "#flow-rows td.number") == {font}
    return page


@pytest.mark.parametrize("font", [WIDEST, "Liberation Sans"])
def test_everything_has_room(visit: Begin, font: str) -> None:
    seen = visit()
    seen.page.add_init_script(WATCH_PLOTS)
    crowd(seen.page)
    page = open_in(font, seen)
    for part in (
        "#health-rows tr",
        "#findings li",
        "#event-list li",
        "#rule-rows tr",
        "#drop-rows tr",
    ):
        expect(seen.find(part).first).to_be_visible(timeout=PATIENCE)
    page.locator("#explain-form [name=vm]").fill("vm1")
    page.locator("#explain-form [name=to]").fill("198.51.100.7")
    page.locator("#explain-form button").click()
    seen.shows("#explain-answer", "1,032,192 free")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 740})
        page.evaluate("cutOff.length = 0")
        page.wait_for_function(
            "async () => { await new Promise(requestAnimationFrame); return true; }"
        )
        page.locator("#pools-more").click()  # draws
        assert page.evaluate(OVERFULL) == [], width
        assert page.evaluate(STICKING_OUT) == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("cutOff") == [], width


# Whether a flow is a row of a table rather than a card, and how many lines its addresses take.
ROW = """() => {
  const row = document.querySelector("#flow-rows tr"), text = new Range();
  text.selectNodeContents(row.querySelector(".place"));
  const lines = new Set([...text.getClientRects()].map(({bottom}) => Math.round(bottom)));
  return [getComputedStyle(row).display, lines.size];
}"""


def test_flows_stay_a_table_where_it_has_room(visit: Begin) -> None:
    seen = visit()
    page = open_in(WIDEST, seen)
    for width, display in ((360, "grid"), (768, "grid"), (1265, "table-row"), (1600, "table-row")):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate(ROW) == [display, 1], width
        # a card says what its values are; a screen reader has a table either way
        title = page.evaluate(
            "getComputedStyle(document.querySelector('#flow-rows td'), '::before').content"
        )
        assert ("data-title" in title or "Protocol" in title) is (display == "grid")
        assert (
            page.get_by_role("table", name="Live flows").get_by_role("columnheader").count() == 14
        )
