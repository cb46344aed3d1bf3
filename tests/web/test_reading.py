"""Whether everybody can read and use the page: any width, any theme, without a mouse."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, eventually
from tests.web.browser import PATIENCE, STICKING_OUT, Visit

Begin = Callable[..., Visit]

# Text whose contrast to what is behind it is below WCAG 2's level AA (1.4.3).
HARD_TO_READ = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const bad = [], seen = new Set();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || node.getClientRects().length === 0 || node.closest(".hidden, datalist, option")) continue;
    const style = getComputedStyle(node);
    const size = parseFloat(style.fontSize), bold = style.fontWeight >= 700;
    const [a, b] = [luminance(rgba(style.color)), luminance(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < (size >= 24 || (bold && size >= 18.66) ? 3 : 4.5)) {
      bad.push(`${contrast.toFixed(2)} ${node.tagName}.${node.className} ${node.textContent.trim().slice(0, 30)}`);
    }
    seen.add(style.color);
  }
  return [bad, seen.size];
}"""


# The first row of the flow table, as wide as flows are in earnest.
WIDE_ROW = """() => {
  document.getElementById("flow-freeze").click();
  const texts = ["Tcp", "Established", "web-vm-1", "10.0.100.104:65535", "203.0.113.100:65535", "198.51.100.100:443",
    "default outbound access", "21.7 Mbit/s", "24.9 Mbit/s", "18.6 MB", "21.7 MB", "15m57s", "59.9s", "3m59s"];
  const cells = document.querySelector("#flow-rows tr").cells;
  const alike = /^(Tcp|Udp) .*( \\d[\\d.]*(s|[mhd]\\d+[smh])){3}$/.test([...cells].map(cell => cell.textContent).join(" "));
  texts.forEach((text, index) => { cells[index].textContent = text; });
  return [cells.length - texts.length, alike];
}"""


@pytest.mark.parametrize("width", [360, 768, 1265, 1400])  # 1280 less a scroll bar
def test_nothing_sticks_out(visit: Begin, width: int) -> None:
    seen = visit(viewport={"width": width, "height": 740})
    page = seen.open()
    expect(seen.find("#flow-rows tr").first).to_be_visible(timeout=PATIENCE)
    page.locator("#explain-form [name=vm]").fill("vm1")
    page.locator("#explain-form [name=to]").fill(SERVER)
    page.locator("#explain-form button").click()
    seen.shows("#explain-answer", "Allowed")
    assert page.evaluate(STICKING_OUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDE_ROW) == [0, True]
    assert page.locator("#flows .scroll").evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize(("width", "lines"), [(1000, 2), (1200, 1), (1265, 1), (1600, 1)])
def test_the_bar_at_the_top_stays_low(visit: Begin, width: int, lines: int) -> None:
    seen = visit(viewport={"width": width, "height": 740})
    page = seen.open()
    page.locator("#where span").first.evaluate("span => span.textContent += ', lan2, lan3, lan4'")
    heights = page.evaluate(
        "['.top', '.choices', '#theme label'].map(s => document.querySelector(s).offsetHeight)"
    )
    assert heights[0] < 20 + 40 * lines
    assert heights[1] <= heights[2] + 2  # both choices side by side
    assert page.evaluate(STICKING_OUT) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(visit: Begin, theme: str) -> None:
    seen = visit(color_scheme=theme)
    page = seen.open()
    expect(seen.find("#flow-rows tr").first).to_be_visible(timeout=PATIENCE)
    seen.shows("#rule-rows", "Deny out")
    bad, colours = page.evaluate(HARD_TO_READ)
    assert bad == []
    assert colours > 4
    # and with somebody exhausted, as that looks
    page.evaluate("""() => {
      for (const [index, level] of ["exhausted", "near"].entries()) {
        const card = document.querySelectorAll(".pool")[index];
        card.dataset.level = level;
        card.querySelector(".level").dataset.level = level;
      }
      document.getElementById("alarm").hidden = false;
      document.getElementById("alarm").innerHTML = "<a href='#ports'>vm1: Tcp ports exhausted</a>";
      document.getElementById("connection").dataset.state = "lost";
    }""")
    assert page.evaluate(HARD_TO_READ)[0] == []


def test_dark_and_light_by_system_and_by_choice(visit: Begin) -> None:
    seen = visit(color_scheme="dark")
    page = seen.open()

    def ground() -> int:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    def plotted() -> str:
        return page.locator(".pool canvas").first.evaluate("canvas => canvas.toDataURL()")

    assert ground() < 150
    page.emulate_media(color_scheme="light")
    assert ground() > 600
    page.get_by_label("Dark").check()
    assert ground() < 150
    dark = plotted()
    page.reload()
    seen.shows("#connection", "Live")
    assert ground() < 150
    assert page.get_by_label("Dark").is_checked()
    page.get_by_label("Light").check()
    assert ground() > 600
    eventually(plotted, lambda picture: picture != dark)


FOCUSED = """() => {
  const node = document.activeElement, style = getComputedStyle(node);
  const shown = node.matches("input[type=radio]") ? getComputedStyle(node.nextElementSibling) : style;
  return [
    node === document.body ? "BODY" : node.id || node.name || node.textContent.trim() || node.getAttribute("aria-label") || node.tagName,
    shown.outlineStyle !== "none" && parseFloat(shown.outlineWidth) >= 2,
    node.getClientRects().length > 0,
  ];
}"""


def test_everything_is_reached_by_keyboard(visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    expect(seen.find("#flow-rows tr").first).to_be_visible(timeout=PATIENCE)
    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED)[0] == "Skip to the SNAT ports"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "ports"

    page.goto("about:blank")
    seen.open()
    expect(seen.find("#flow-rows tr").first).to_be_visible(timeout=PATIENCE)
    names: list[str] = []
    for _ in range(120):
        page.keyboard.press("Tab")
        name, outlined, visible = page.evaluate(FOCUSED)
        if name == "BODY" or (names and name == names[0]):
            break
        assert outlined, name
        assert visible, name
        names.append(name)
    for wanted in ("Ports", "Explain", "range", "theme", "match", "protocol", "limit", "flow-freeze",
                   "Clear", "VM", "Expires", "vm", "to", "toPort", "event-list"):  # fmt: skip
        assert wanted in names, names
    assert sum("Flows" in name for name in names) >= 2


def test_plots_tell_their_values_to_the_keyboard(town: Gateway, visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    canvas = page.get_by_role("slider", name="vm1 Tcp ports")
    canvas.focus()
    eventually(
        lambda: canvas.evaluate("c => Number(c.ariaValueNow) || c.getAttribute('aria-valuenow')")
    )
    page.keyboard.press("Home")
    eventually(lambda: int(canvas.get_attribute("aria-valuenow") or 0), lambda now: now < -2)
    first = canvas.get_attribute("aria-valuetext") or ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d: [\d,]+ of 1,024", first)
    page.keyboard.press("ArrowRight")
    eventually(lambda: canvas.get_attribute("aria-valuetext"), lambda text: text != first)
    page.keyboard.press("Escape")
    eventually(lambda: canvas.get_attribute("aria-valuenow"), lambda now: now == "0")


def test_landmarks_labels_and_headers(visit: Begin) -> None:
    seen = visit()
    page = seen.open()
    assert page.locator("html").get_attribute("lang") == "en"
    for landmark in ("banner", "main", "contentinfo", "search", "navigation"):
        assert page.get_by_role(landmark).count() == 1, landmark
    assert page.locator("h1").count() == 1
    for name in ("SNAT ports", "Events", "Gateway traffic", "Flows", "Top destinations",
                 "Security rule hits", "Packets dropped", "Explain"):  # fmt: skip
        assert page.get_by_role("region", name=name).count() >= 1, name
        assert page.get_by_role("heading", name=name).count() == 1, name
    unnamed = page.evaluate("""() => [...document.querySelectorAll("input, select, button, canvas")]
      .filter(node => node.getClientRects().length > 0)
      .filter(node => !(node.labels?.[0]?.textContent || node.textContent || node.ariaLabel).trim())
      .map(node => node.outerHTML)""")
    assert unnamed == []
    loose = page.evaluate(
        "[...document.querySelectorAll('th')].filter(th => th.scope !== 'col').length"
    )
    assert loose == 0
    assert page.locator("#announcement").get_attribute("aria-live") == "polite"
    repeated = page.evaluate("""() => {
      const ids = [...document.querySelectorAll("[id]")].map(node => node.id);
      return ids.filter((id, index) => ids.indexOf(id) !== index);
    }""")
    assert repeated == []
