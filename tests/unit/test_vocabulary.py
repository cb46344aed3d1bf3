"""The field's words in what people read: documentation, messages, docstrings and comments.

A word goes into ``INSTEAD`` when it has been replaced everywhere, so that it does not come back.
Where it is right all the same (an Azure name, an errno), ``ALLOWED`` has the phrase.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = sorted((ROOT / "gateway").rglob("*.py"))

INSTEAD = {
    r"allot\w*": "allocate, allocation",
    r"anew": "again",
    r"anybody|somebody|whoever": "who it is: another program, a client, a VM, a user",
    r"nobody": "no process, no client, no VM, none",
    r"complain\w* of": "No findings",
    r"(?:the|its|many|these) faces": "clients (of the API)",
    r"holes": "free ports, gaps; sparse (of files)",
    r"hungry": "uses two SNAT ports a connection",
    r"(?:is|are|was|were) no more(?! than)": "no longer exists",
    r"judges?|judged|judging|judgements?": "evaluate, filter, match",
    r"looks at|looked at|looking at": "polls, checks, visits, reads",
    r"(?<!virtual )(?<!state )machines?": "VM; host for what a gateway runs on",
    r"puts? up with": "tolerates",
    r"refuse[sd]?|refusing|refusals?": "drop (a packet), reject (a file, a request), deny (a rule)",
    r"says? so": "reports it",
    r"strangers?": "implicit VM (not in the configuration), untrusted client",
    r"that there are": "existing",
    r"told": "notified, reported, distinguished",
    r"wardens?": "supervisor",
    r"ways? out": "outbound method, egress, outbound connectivity",
    r"(?:is|are|all) well": "healthy, No findings",
}
ALLOWED = re.compile(
    # An RST, as in ECONNREFUSED; the user.
    r"connection (?:is |was )?refused|refused connection|no refusal, no ICMP|user nobody",
    re.IGNORECASE,
)
_BANNED = {re.compile(rf"\b(?:{words})\b", re.IGNORECASE): say for words, say in INSTEAD.items()}
_BLOCK = re.compile(r"^(```|~~~).*?^\1|^    [^\n]*", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"``[^`]*``|`[^`\n]*`")


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """What people read of a file, and the line that each piece begins at. Code is left out."""
    source = path.read_text()
    if path.suffix == ".md":
        yield 1, _CODE.sub(_blank, _BLOCK.sub(_blank, source))
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        # A string without a space is a name: of a user, a key, an event.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, _CODE.sub(_blank, node.value)


def findings(path: Path) -> list[str]:
    """Words that have been replaced, and are in a file again."""
    found = []
    for first, text in texts(path):
        plain = ALLOWED.sub(_blank, text)
        for banned, instead in _BANNED.items():
            for match in banned.finditer(plain):
                line = first + plain.count("\n", 0, match.start())
                place = (
                    f"{path.relative_to(ROOT)}:{line}" if path.is_relative_to(ROOT) else str(line)
                )
                found.append(f'{place}: "{match.group()}": say {instead}')
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_documentation_has_the_fields_words(path: Path) -> None:
    assert findings(path) == []


def test_modules_have_the_fields_words() -> None:
    assert [line for path in MODULES for line in findings(path)] == []


def test_a_word_that_comes_back_is_found(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""Whoever sends, is told."""\nusers = ("nobody", f"no {users} anew")  # a warden\n'
    )
    assert [line.split(": ")[1] for line in findings(module)] == [
        '"warden"',
        '"Whoever"',
        '"told"',
        '"anew"',
    ]
    page = tmp_path / "page.md"
    page.write_text("The packet is refused.\n\n    told\n\n`nobody`: connection refused\n")
    assert findings(page) == ['1: "refused": say ' + INSTEAD[r"refuse[sd]?|refusing|refusals?"]]
