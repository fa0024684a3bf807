"""Many runs of one design: a teacher and variants of its student at several lambdas and seeds."""

from __future__ import annotations

from .gains import gains
from .plan import Family
from .record import read_record, record_of
from .run import run_family, status
from .tables import summarise

__all__ = ["Family", "gains", "read_record", "record_of", "run_family", "status", "summarise"]
