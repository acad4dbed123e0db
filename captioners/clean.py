"""Captions put in order by rules, and what is wrong with one that rules cannot mend.

The rules are those that EasyAnimate gives to the model that rewrites its captions (no lead-in such as "The video
shows", no statement about the captioning itself) and CogVideoX gives to the one that summarises (no line break, nothing
but the description), as far as a program can follow them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from captioners.quoting import plain

_THIS = r"(?:the|this|that)\s+(?:short\s+)?(?:video(?:\s+clip)?|clip|footage|film|scene|sequence|image|picture|frame)s?"
_VERBS = (
    r"(?:shows?|depicts?|features?|presents?|captures?|displays?|portrays?|showcases?|illustrates?|contains?|"
    r"begins?\s+with|starts?\s+with|opens?\s+with|is\s+(?:a|an)\s+(?:shot|view|recording|video)\s+of|is\s+about)"
)
_LEAD_IN = re.compile(
    rf"^(?:in\s+{_THIS},\s+|{_THIS}\s+{_VERBS}\s+(?:us\s+)?|(?:we|you|one)\s+(?:can\s+)?sees?\s+)", re.I
)
_OPENING = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here(?:'s| is| are))\b[^.:!\n]{0,80}[:!]\s*|"
    r"^(?:answer|caption|description)\s*:\s*",
    re.I,
)
_AS_IT_GOES_ON = re.compile(rf"\bas\s+{_THIS}\s+(?:goes\s+on|progresses|continues|unfolds),\s+(\w)", re.I)
_MARKDOWN = re.compile(r"^\s*(?:[-*#>]+|\d+\.)\s+|[*_`]{2,}|`", re.M)
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")

_REFUSAL = re.compile(
    r"\b(?:i'?m\s+(?:sorry|unable|not\s+able)|i\s+(?:can(?:'?t|not)|am\s+(?:unable|not\s+able))|as\s+an?\s+(?:ai|language)|"
    r"sorry,|no\s+(?:video|image|picture)s?\s+(?:was|were|is|are|has\s+been)|unable\s+to\s+(?:see|view|describe|process))",
    re.I,
)
_LEFT_OVER = re.compile(rf"\b{_THIS}\s+{_VERBS}\b|\bframes?\s+\d|\bimage_captions\b", re.I)
_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget)\s+(?:all|any|the|your|these|previous|prior|above)\b[^.]{0,40}\b"
    r"(?:instructions?|prompts?|rules?)|\bsystem\s+prompt\b|https?://|\bclick\s+here\b",
    re.I,
)
_WORDS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an the and or of in on at to with by for from is are was were has have as it its his her their that this "
        "while then over under into onto near behind beside through against up down out off no not",
    )
)


def clean(text: str, whole: bool = True) -> str:
    """One paragraph that begins with the content. whole: the text ended by itself; otherwise it is cut after its last
    whole sentence, if it has one."""
    text = _MARKDOWN.sub("", plain(text))
    text = " ".join(text.split()).strip(" \"'")
    if not whole:
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        text = text[: ends[-1]] if ends else text
    for pattern in (_OPENING, _OPENING, _LEAD_IN, _LEAD_IN):
        text = pattern.sub("", text).lstrip(" ,:;-")
    text = _AS_IT_GOES_ON.sub(lambda found: found[1].upper() if found[0][0].isupper() else found[1], text)
    text = text[:1].upper() + text[1:]
    return f"{text}." if text and text[-1].isalnum() else text


@dataclass(frozen=True, slots=True)
class Lints:
    """What makes a caption unfit for training.

    fewest, most: words. language: english or, for any, "". latin: share of letters that must be Latin; common: share of
    words that must be common English ones, in captions of 12 and more. off: names of lints not to heed.

    The lints: empty, short, long, refusal, left_over ("the video shows" inside), loop, language, orders (text that
    speaks to a reader or names an address: what a film may smuggle into its own caption).
    """

    fewest: int = 3
    most: int = 300
    language: str = "english"
    latin: float = 0.9
    common: float = 0.12
    off: tuple[str, ...] = ()

    def __call__(self, text: str) -> list[str]:
        """Names of the lints that this caption sets off, none if it is fit."""
        words = [word.lower() for word in _WORDS.findall(text)]
        found = {
            "empty": not words,
            "short": 0 < len(words) < self.fewest,
            "long": len(words) > self.most,
            "refusal": bool(_REFUSAL.search(text[:200])),
            "left_over": bool(_LEFT_OVER.search(text)),
            "loop": repeats(words),
            "language": self.language == "english" and not self._english(text, words),
            "orders": bool(_ORDERS.search(text)),
        }
        return [name for name, wrong in found.items() if wrong and name not in self.off]

    def _english(self, text: str, words: list[str]) -> bool:
        letters = [c for c in text if c.isalpha()]
        latin = sum(c.isascii() or c in "àâäçèéêëíîïñóôöùúûüœæ" for c in letters)
        if latin < self.latin * len(letters):
            return False
        return len(words) < 12 or sum(word in _COMMON for word in words) >= self.common * len(words)


def repeats(words: list[str], times: int = 4) -> bool:
    """Whether a phrase of up to 12 words follows itself `times` times (a single word: twice as often), or a sentence's
    worth of words (8) occurs that often anywhere: signs of a model caught in a loop."""
    for size in range(1, 13):
        run, needed = 0, (times if size > 1 else 2 * times) * size - size
        for k in range(size, len(words)):
            run = run + 1 if words[k] == words[k - size] else 0
            if run >= needed:
                return True
    phrases = Counter(tuple(words[k : k + 8]) for k in range(len(words) - 7))
    return bool(phrases) and max(phrases.values()) >= times
