"""The page's files: whole, of one origin, and never taking data for markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.web.site import Site

FILES = sorted((Path(__file__).parents[3] / "gateway/web/page").iterdir())
SCRIPTS = [file for file in FILES if file.suffix == ".js"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|[\"'(]//|@import|data:", text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_data_is_never_markup_or_code(script: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|setHTML|\.srcdoc"
    assert not re.search(ways, script.read_text())


def test_the_policy_allows_what_the_page_has() -> None:
    """Scripts and styles are files of their own: no attribute and no element has any inside."""
    page = next(file for file in FILES if file.name == "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_whatever_the_page_asks_for_is_served() -> None:
    served = Site.load().pages
    assert len(served) == len(FILES)
    for file in FILES:
        for path in re.findall(r"(?:src|href)=\"(/[^\"]+)\"|from \"(/[^\"]+)\"", file.read_text()):
            assert "".join(path) in served, file.name
