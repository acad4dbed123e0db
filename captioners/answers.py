"""Typed answers: a JSON schema out of a dataclass, and an instance of it out of what a model wrote.

A field may be str, bool, int, float, a Literal, another such dataclass, a tuple of one of these (`tuple[str, ...]`), or
one of these or None. `Annotated[str, Within(most=80)]` bounds characters, items or the number itself. Bounds keep a
model that repeats itself from filling its token limit, which would leave half a JSON text.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from captioners.ask import BadAnswer

T = TypeVar("T")

_PLAIN: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_BOUNDS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of characters, items or a number; pattern: a regular expression that is found in the text (anchor it with
    ^ and $); says: tells the model what belongs here."""

    least: float | None = None
    most: float | None = None
    pattern: str = ""
    says: str = ""


@functools.cache
def schema_of(kind: Any) -> dict[str, Any]:
    """JSON schema of a dataclass; every field is required and no other is allowed."""
    assert dataclasses.is_dataclass(kind), f"{kind} is not a dataclass"
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    return {
        "type": "object",
        "properties": {name: _schema(hints[name]) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _schema(hint: Any) -> dict[str, Any]:
    hint, within = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        made: dict[str, Any] = {"type": _PLAIN[hint]}
    elif origin is Literal:
        made = {"enum": list(args)}
    elif origin is tuple:
        made = {"type": "array", "items": _schema(args[0])}
    elif origin in (Union, types.UnionType):
        made = {"anyOf": [{"type": "null"} if one is types.NoneType else _schema(one) for one in args]}
    else:
        made = dict(schema_of(hint))
    low, high = _BOUNDS.get(made.get("type", ""), ("minimum", "maximum"))
    said = {low: within.least, high: within.most, "pattern": within.pattern, "description": within.says}
    return made | {key: value for key, value in said.items() if value not in (None, "")}


def _bare(hint: Any) -> tuple[Any, Within]:
    """A hint without its annotation, and its bounds."""
    if get_origin(hint) is not Annotated:
        return hint, Within()
    base, *notes = get_args(hint)
    return base, next((note for note in notes if isinstance(note, Within)), Within())


def parse(text: str, kind: type[T]) -> T:
    """An instance of `kind` out of a JSON text; a fence of Markdown around it is taken off.

    Text beyond its bound is cut off there. Raises BadAnswer when the answer is no JSON, or lacks a field, or has one of
    another kind or beyond its bounds.
    """
    text = text.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json")
    try:
        value = json.loads(text, strict=False)  # models write line breaks inside of strings
    except (ValueError, RecursionError) as error:
        raise BadAnswer(f"the model's answer is no JSON ({error}): {_start(text)}") from None
    made = _made(value, kind, "the answer")
    assert isinstance(made, kind)
    return made


def _made(value: Any, hint: Any, where: str) -> Any:
    hint, within = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    wrong = BadAnswer(f"{where} is not as asked for: {_start(json.dumps(value))}")
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise wrong
        hints = get_type_hints(hint, include_extras=True)
        names = [field.name for field in dataclasses.fields(hint)]
        lacking = [name for name in names if name not in value]
        if lacking:
            raise BadAnswer(f"{where} lacks {', '.join(lacking)}: {_start(json.dumps(value))}")
        assert isinstance(hint, type)
        return hint(**{name: _made(value[name], hints[name], f"{where}.{name}") for name in names})
    if origin is Literal:
        if value not in args:
            raise wrong
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise wrong
        _check(len(value), within, wrong)
        return tuple(_made(item, args[0], f"{where}[{k}]") for k, item in enumerate(value))
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in args:
            return None
        return _made(value, next(one for one in args if one is not types.NoneType), where)
    return _plain(value, hint, within, wrong)


def _plain(value: Any, hint: Any, within: Within, wrong: BadAnswer) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise wrong
    if hint is str and within.pattern and not re.search(within.pattern, value):
        raise wrong
    if hint is str and within.most is not None:
        # Servers count before they mend broken UTF-8, and some do not count at all; the bound is against running on.
        value = value[: int(within.most)]
    if hint is not bool:
        _check(len(value) if hint is str else value, within, wrong)
    return value


def _check(measure: float, within: Within, wrong: BadAnswer) -> None:
    too_little = within.least is not None and measure < within.least
    if too_little or (within.most is not None and measure > within.most):
        raise wrong


def _start(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."
