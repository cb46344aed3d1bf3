"""ARM's expression language: what is resolved, what is named, and that nothing hangs or blows up."""

from __future__ import annotations

import pytest

from gateway.importing.evaluation import Scope, Unresolved
from gateway.importing.expressions import Call, ExpressionError, Literal, Member, parse

ID = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/template/providers"


def scope(**given: object) -> Scope:
    parameters: dict[str, object] = {
        "text": {"type": "string", "defaultValue": "web"},
        "number": {"type": "int", "defaultValue": 3},
        "made": {"type": "string", "defaultValue": "[concat(parameters('text'), '-x')]"},
        "list": {"type": "array", "defaultValue": ["a", {"Deep": ["b", "c"]}]},
        "needed": {"type": "string"},
    }
    variables: dict[str, object] = {
        "object": {"cidr": "10.0.0.0/16", "name": "[parameters('text')]", "bad": "[utcNow()]"},
        "a": "[variables('b')]",
        "b": "[concat('x', variables('A'))]",
    }
    return Scope(parameters, variables, given)


def test_a_tree_reads_as_it_is_written() -> None:
    assert parse("[concat('it''s', -3)]") == Call("concat", (Literal("it's"), Literal(-3)))
    assert parse("[ f().a[0] ]") == Member(Member(Call("f", ()), Literal("a")), Literal(0))
    assert parse("[contoso.name('x')]") == Call("contoso.name", (Literal("x"),))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("[[escaped]", "[escaped]"),
        ("[open", "[open"),
        ("['x']", "x"),
        ("[parameters('TEXT')]", "web"),
        ("[parameters('made')]", "web-x"),
        ("[parameters('number')]", 3),
        ("[parameters('list')[1].deep[0]]", "b"),
        ("[variables('object').cidr]", "10.0.0.0/16"),
        ("[variables('object')['NAME']]", "web"),
        ("[CONCAT('a', 'b', 1)]", "ab1"),
        ("[concat(parameters('list'), parameters('list'))[2]]", "a"),
        ("[format('{0}-{1}-{0} {{x}}', 'a', parameters('number'))]", "a-3-a {x}"),
        (
            "[resourceId('Microsoft.Network/virtualNetworks', 'v')]",
            f"{ID}/Microsoft.Network/virtualNetworks/v",
        ),
        (
            "[resourceId('sub', 'rg', 'Microsoft.Network/virtualNetworks/subnets', 'v', 's')]",
            "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/v/subnets/s",
        ),
    ],
)
def test_what_is_resolved(text: str, value: object) -> None:
    assert scope().resolve(text) == value


def test_given_values_count_before_defaults_and_are_no_expressions() -> None:
    assert scope(text="[concat('a')]").resolve("[parameters('text')]") == "[concat('a')]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[uniqueString('a')]", "function uniqueString is not carried over"),
        ("[concat('a', reference('x').y)]", "function reference is not carried over"),
        ("[variables('object').bad]", "function utcNow is not carried over"),
        ("[parameters('needed')]", "give --parameter needed=VALUE"),
        ("[parameters('other')]", "there is no parameter other"),
        ("[variables('other')]", "there is no variable other"),
        ("[variables('a')]", "A is defined in terms of itself (a → b → a)"),
        ("[parameters('list')[9]]", "no item 9 in a list of 2"),
        ("[parameters('text').x]", "a text has no text index"),
        ("[variables('object').none]", "there is no property none"),
        ("[format('{0:N2}', 1)]", "only {0}, {1}"),
        ("[format('{1}', 'a')]", "only {0}, {1}"),
        ("[format('}')]", "only {0}, {1}"),
        ("[concat('a', parameters('list'))]", "of a list is not carried over"),
        ("[resourceId('nothing')]", "takes a type"),
        ("[resourceId('Microsoft.Network/virtualNetworks', 'v', 's')]", "takes 1 names"),
        ("[concat('a'", ""),
        ("[concat('a' 'b')]", "has 'b' where ) should be"),
        ("[concat('a'))]", "has ) where the end should be"),
        ("[concat('a]", "cannot be read"),
        ("[ ]", "has the end where a function"),
        ("[" + "concat(" * 50 + ")" * 50 + "]", "nested more than 40 deep"),
        ("[parameters('list')" + "[0]" * 50 + "]", "more than 40 accesses"),
        ("[concat('" + "a" * 30_000 + "')]", "is longer than 24576 characters"),
    ],
)
def test_what_is_named(text: str, reason: str) -> None:
    value = scope().resolve(text)
    if not reason:
        assert value == text  # without its closing bracket it is no expression
        return
    assert isinstance(value, Unresolved)
    assert reason in value.reason


def test_errors_are_errors_of_the_language() -> None:
    with pytest.raises(ExpressionError):
        parse("[a.b]")


def test_only_what_is_used_needs_to_be_known() -> None:
    value = scope().resolve({"a": "[variables('object')]", "b": "[newGuid()]"})
    assert isinstance(value, dict)
    assert value["a"]["cidr"] == "10.0.0.0/16"
    assert isinstance(value["b"], Unresolved)


def test_variables_that_double_and_chains_without_end_are_bounded() -> None:
    doubling: dict[str, object] = {"v0": "aaaaaaaaaa"}
    listed: dict[str, object] = {"v0": ["a", "b"]}
    chain: dict[str, object] = {"v0": "x"}
    for number in range(1, 3000):
        before = f"variables('v{number - 1}')"
        doubling[f"v{number}"] = f"[concat({before}, {before})]"
        listed[f"v{number}"] = f"[concat({before}, {before})]"
        chain[f"v{number}"] = f"[{before}]"
    for variables, count in ((doubling, 40), (listed, 40), (chain, 2999)):
        value = Scope({}, variables, {}).resolve(f"[variables('v{count}')]")
        assert isinstance(value, Unresolved)
    many: dict[str, object] = {f"v{n}": [f"[variables('v{n + 1}')]"] * 9 for n in range(40)}
    Scope({}, many | {"v40": "[utcNow()]"}, {}).resolve("[variables('v0')]")
