"""The command line: thin, and quick to answer, since heavy imports happen inside commands.

One file holds the commands of one kind; importing it registers them, in the order of `distillkit --help`.
"""

# pyright: reportUnusedImport=false
from . import demo, train, data, compress, export, bench, fit, family, measure, compare  # noqa: F401, I001 - the order of --help
from . import report, registry, plugins, doctor  # noqa: F401
from .app import main

__all__ = ["main"]
