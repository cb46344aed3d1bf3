"""The table of requests is whole, and what is not in it is answered, too."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.daemon.api_process import engine_client
from gateway.daemon.channel.api_messages import REQUESTS, Kind, Request
from gateway.daemon.engine_process.requests import (
    Parameters,
    RequestHandler,
    Requests,
    Steps,
    at_once,
    in_slices,
    later,
    nothing,
)
from gateway.schema.queries import QueryError, parse_flag
from tests.unit.daemon.serving import requests_with


def whole_table() -> dict[str, RequestHandler]:
    return {name: at_once(nothing, lambda _: None) for name in REQUESTS}


def answers(requests: Requests, name: str, **parameters: str) -> list[tuple[Kind, Any] | None]:
    return list(requests.answer(Request(1, name, parameters), lambda kind, payload: None))


def test_a_request_without_a_handler_and_a_handler_without_a_request_are_errors() -> None:
    table = whole_table()
    Requests(table)
    metrics = table.pop("metrics")
    with pytest.raises(ValueError, match=r"no handlers for the requests.*metrics"):
        Requests(table)
    with pytest.raises(ValueError, match=r"does not list.*exec"):
        Requests(table, {"metrics": metrics, "exec": metrics})
    with pytest.raises(ValueError, match=r"two handlers.*flows"):
        Requests(table, {"flows": metrics, "metrics": metrics})


def test_what_the_api_process_asks_for_is_in_the_list() -> None:
    tree = ast.parse(inspect.getsource(engine_client))
    asked = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("_ask", "_share")
        and isinstance(node.args[0], ast.Constant)
    }
    assert asked == REQUESTS.keys()


def test_a_request_that_there_is_not_is_answered_with_an_error_and_nothing_else_happens() -> None:
    done: list[str] = []
    table: Mapping[str, RequestHandler] = {
        name: at_once(nothing, lambda _, name=name: done.append(name))  # type: ignore[misc]
        for name in REQUESTS
    }
    requests = Requests(table)
    assert answers(requests, "exec") == [(Kind.FAILED, ["no such request: 'exec'"])]
    assert answers(requests, "flows", vm="vm1") == [
        (Kind.FAILED, ["flows: no such parameter: 'vm'"])
    ]
    ((kind, (line,)),) = answers(requests, "x" * 4000)  # type: ignore[misc]
    assert kind is Kind.FAILED
    assert len(line) < 100
    assert done == []


def test_the_three_ways_of_answering() -> None:
    def steps(values: Parameters) -> Steps:
        yield Kind.PART, [1]
        yield None
        yield Kind.END, dict(values)

    waiting = []
    requests = requests_with(
        {
            "status": at_once(nothing, lambda _: {"flows": 0}),
            "nsg": in_slices(dict, steps),
            "reload": later(
                lambda values: parse_flag(values, "enforce"),
                lambda enforce, respond: waiting.append((enforce, respond)),
            ),
        }
    )
    assert answers(requests, "status") == [(Kind.END, {"flows": 0})]
    assert answers(requests, "nsg", vm="a") == [(Kind.PART, [1]), None, (Kind.END, {"vm": "a"})]
    said: list[tuple[Kind, Any]] = []
    asked = requests.answer(
        Request(1, "reload", {"enforce": "1"}), lambda kind, payload: said.append((kind, payload))
    )
    assert list(asked) == [None]
    ((enforce, respond),) = waiting
    respond(Kind.END, "done")
    assert (enforce, said) == (True, [(Kind.END, "done")])
    assert answers(requests, "reload", enforce="yes") == [
        (Kind.FAILED, ["enforce: 'yes' is neither 0 nor 1"])
    ]


def test_a_handler_may_find_that_a_query_cannot_be_answered() -> None:
    def fails(_: None) -> None:
        raise QueryError(["not now"])

    requests = requests_with({"status": at_once(nothing, fails)})
    assert answers(requests, "status") == [(Kind.FAILED, ["not now"])]
