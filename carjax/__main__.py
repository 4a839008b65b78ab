"""`python -m carjax` is the `carjax` command."""

from carjax.cli.main import run

run()
