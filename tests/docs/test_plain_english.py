"""Texts that a person reads are in plain words: pages, help, messages, docstrings and comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("distillkit", "plugins", "examples", "docs", "benchmarks")
TEXTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".md", ".py", ".html", ".js", ".toml", ".txt")
    ),
]
#: What is not written -> what is.
PLAIN = {
    r"\b(is|are|was|were|be|been) (said|told)\b|\bwith a word\b|\bsaid aloud\b": "is reported, a warning says",
    r"\bgo(es|ing|ne)? on\b|\bwent on\b": "continues",
    r"\bwhat(ever)? is left of\b": "the remaining steps",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(one )?((in|of|at) )?so many\b": "this many, every N-th step, times N",
    r"\bhow far each\b": "status",
    r"\border of\s+chance\b": "a random order",
    r"\bnone the worse\b": "unchanged",
    r"\bof (its|their|one's) own\b": "its own, another, separate",
    r"\bfor want of\b": "for lack of",
    r"\bbut for\b": "except, up to, apart from",
    r"\bin hand\b": "current",
    r"\banew\b": "again",
    r"\bby turns\b": "in turns",
    r"\bspeaks?\b": "has, describes",
    r"\bhand(s|ed|ing)? (over|on)\b": "pass",
    r"\b(is|are|was|were) to be\b": "must be, is",
    r"\bcomes? to (lie|differ|be)\b": "is, differs",
    r"\bit said\b": "its output",
    r"\b(crops|bits|pixels|multiply-accumulates) a (step|second|sample|channel|side|pixel|picture)\b": "per",
}


def strange_words(text: str) -> list[str]:
    return [
        f"line {text[: found.start()].count(chr(10)) + 1}: {found[0]!r}; write: {plain}"
        for pattern, plain in PLAIN.items()
        for found in re.finditer(pattern.replace(" ", r"\s+"), text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_texts_are_in_plain_words(path):
    assert strange_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ("A run goes\non after it was told.", 2),
        ("what was mended in one of so many steps", 2),
        ("It is left out with a warning; the codec is reported to continue.", 0),
    ],
)
def test_strange_words_are_found(text, num):
    assert len(strange_words(text)) == num
