"""``python -m cli`` is ``mlops``."""

from cli.main import main

main()
