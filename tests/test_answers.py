"""Forms of answers: what a model is held to, and what becomes of what it says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from captioners.answers import Within, parse, schema_of
from captioners.ask import BadAnswer


@dataclass(frozen=True)
class Thing:
    name: Annotated[str, Within(least=1, most=5, says="what it is")]
    kind: Literal["a", "b"]


@dataclass(frozen=True)
class Form:
    things: Annotated[tuple[Thing, ...], Within(most=2)]
    share: Annotated[float, Within(least=0, most=1)]
    sure: bool
    count: int = 0
    note: str | None = None


def test_schemas_say_everything_that_is_checked() -> None:
    schema = schema_of(Form)
    assert schema["required"] == ["things", "share", "sure", "count", "note"] and not schema["additionalProperties"]
    thing = schema["properties"]["things"]
    assert thing["maxItems"] == 2 and thing["items"]["properties"]["kind"] == {"enum": ["a", "b"]}
    name = {"type": "string", "minLength": 1, "maxLength": 5, "description": "what it is"}
    assert thing["items"]["properties"]["name"] == name
    assert schema["properties"]["share"] == {"type": "number", "minimum": 0, "maximum": 1}
    assert schema["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}


GOOD = {"things": [{"name": "ball", "kind": "a"}], "share": 1, "sure": True, "count": 2, "note": None}


def test_answers_become_instances() -> None:
    made = parse("```json\n" + json.dumps(GOOD) + "\n```", Form)
    assert made == Form((Thing("ball", "a"),), 1.0, True, 2, None) and isinstance(made.share, float)
    long = parse(json.dumps({**GOOD, "things": [{"name": "balloons", "kind": "b"}]}), Form)
    assert long.things[0].name == "ballo", "text that runs on is cut"
    assert parse('{"name": "a\nb", "kind": "a"}', Thing).name == "a\nb", "line breaks inside of strings are forgiven"


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 2},
        {"share": "1"},
        {"sure": 1},
        {"count": True},
        {"count": 1.5},
        {"things": [GOOD["things"][0]] * 3},
        {"things": {}},
        {"things": [{"name": "", "kind": "a"}]},
        {"things": [{"name": "x", "kind": "c"}]},
        {"things": [{"name": "x"}]},
        {"note": 3},
    ],
)
def test_wrong_answers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="the answer"):
        parse(json.dumps(GOOD | wrong), Form)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"x"', "{" * 100_000, json.dumps(GOOD)[:40]])
def test_broken_answers_are_refused(text: str) -> None:
    with pytest.raises(BadAnswer):
        parse(text, Form)
