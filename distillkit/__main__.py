"""`python -m distillkit`."""

from .cli import main

main()
