"""Every error says where, what was got against what was expected, and what to do; `tests/errors.txt` shows them all."""

from __future__ import annotations

import re

from . import errors

#: Messages that end with what another error says, which has its own advice.
RELAYED = re.compile(r"<(error|problem|line)>\.?$")
#: What to do: a clause or sentence after the facts, or a suggestion that is filled in.
ADVICE = re.compile(r"; |\. [A-Z`']|[?]$|<hint>|<did_you_mean>")


def test_the_snapshot_is_fresh():
    assert errors.collect() == errors.FILE.read_text(encoding="utf-8"), (
        "the errors changed: run `python -m tests.errors`, and read the difference of tests/errors.txt as a user would"
    )


def test_every_message_says_where_and_what_to_do():
    lacking = []
    for file, messages in errors.templates().items():
        for message in messages:
            kind, _, text = message.partition(": ")
            where = kind == "ValueError" or ": " in text or text.startswith("<")
            advice = ADVICE.search(text) or RELAYED.search(text)
            if not (where and (advice or kind == "ValueError")):
                lacking.append(f"{file}: {message}")
    assert not lacking, "\n".join(lacking)
