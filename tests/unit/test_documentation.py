"""The documentation holds together: every page is in the index, every relative link leads somewhere."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TOP_LEVEL = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
]

_CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Relative targets of a page's links and pictures; what stands in code blocks is no link."""
    text = _CODE_BLOCK.sub("", page.read_text())
    found = [first or second for first, second in _LINK.findall(text)]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(_CODE_BLOCK.sub("", page.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number, candidate = 0, anchor
        while candidate in found:
            number += 1
            candidate = f"{anchor}-{number}"
        found.add(candidate)
    return found


def test_every_page_is_in_the_index_with_its_purpose() -> None:
    listed = dict(
        re.findall(r"^\* \[[^\]]+\]\(([\w.-]+\.md)\): (.+)$", INDEX.read_text(), re.MULTILINE)
    )
    pages = {str(page.relative_to(INDEX.parent)) for page in PAGES if page != INDEX}
    assert listed.keys() == pages, (
        "docs/README.md lists each page once: `* [Title](page.md): purpose`"
    )


def test_the_readme_leads_to_the_index() -> None:
    assert "docs/README.md" in links(ROOT / "README.md")


@pytest.mark.parametrize("page", [*TOP_LEVEL, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file) if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_installed_programs_find_the_documentation() -> None:
    """The service and the configuration to begin with name pages that scripts/install copies."""
    for packaged in (ROOT / "packaging").iterdir():
        for name in re.findall(r"share/doc/snatgw/(\S+?\.md)", packaged.read_text()):
            assert (ROOT / name).exists(), f"{packaged.name}: {name}"


def test_each_module_of_the_daemon_names_its_process() -> None:
    """In its docstring's first paragraph: ``Runs in the API process.``"""
    processes = re.compile(
        r"\bRuns in (?:the (?:API|engine|prober|reader|supervisor)|e\w+) process"
    )
    silent = []
    for path in sorted((ROOT / "gateway" / "daemon").rglob("*.py")):
        summary = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
        if path.name != "__init__.py" and not processes.search(summary):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_the_files_that_the_code_refers_to_exist() -> None:
    """``name.py`` in a docstring or comment of gateway/ is a file of that name, or of that path."""
    files = [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("[!.]*/**/*.*")]
    stale = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "gateway").rglob("*.py"))
        for name in re.findall(r"``([\w/]+\.(?:py|c))``", path.read_text())
        if not any(file.endswith(f"/{name}") for file in files)
    ]
    assert stale == []
