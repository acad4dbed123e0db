"""Captions composed from the measured signals: no model, no claim beyond what was measured.

They say how the camera moves, how much moves, how the light and the colours are and whether there is text. They name
no object: what a clip shows is for a video LLM to tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captioners.text import Layout

MODEL = "from_signals"


@dataclass(frozen=True, slots=True)
class FromSignals:
    """sure: camera-motion confidence from which the motion is put in front."""

    sure: float = 0.6
    version: int = 2

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str | None]:
        """Caption columns for one row of the manifest."""
        if row.get("exposure") is None or row.get("motion_flow") is None:
            return {"caption_error": "the clip was too short or too small to measure"}
        look = _look(row)
        short = f"{_article(look)} {look} scene."
        raw = f"{short[:-1]} {_colors(row)}, with {_motion(row)}{_text(row)}."
        return {
            "caption": Layout(self.sure)(raw, row),
            "caption_raw": raw,
            "caption_short": short,
            "caption_model": MODEL,
            "caption_prompt": None,
            "caption_error": None,
        }


def _article(word: str) -> str:
    return "An" if word[0] in "aeiou" else "A"


def _look(row: Mapping[str, Any]) -> str:
    light = "dark" if row["exposure"] < 0.25 else "bright" if row["exposure"] > 0.6 else "evenly lit"
    colors = row.get("colorfulness") or 0.0
    tint = "black and white" if colors < 5 else "muted" if colors < 25 else "colourful" if colors > 50 else ""
    contrast = row.get("contrast") or 0.0
    depth = "low-contrast" if contrast < 0.3 else ""
    return ", ".join(word for word in (light, depth, tint) if word)


def _colors(row: Mapping[str, Any]) -> str:
    names = row.get("dominant_colors") or []
    if not names:
        return "of mixed colours"
    return "in " + (names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1])


def _motion(row: Mapping[str, Any]) -> str:
    speed = row["motion_flow"]
    amount = (
        "no motion" if speed < 1 else "slow motion" if speed < 25 else "steady motion" if speed < 100 else "fast motion"
    )
    return amount + (" and a shaking camera" if (row.get("shake") or 0.0) > 30 else "")


def _text(row: Mapping[str, Any]) -> str:
    return " and text on the screen" if (row.get("text_area") or 0.0) > 0.01 else ""
