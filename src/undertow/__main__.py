"""`python -m undertow` is the command `undertow`."""

from undertow.cli import main

main()
