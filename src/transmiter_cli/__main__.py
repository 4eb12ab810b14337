"""python -m transmiter_cli."""

from transmiter_cli.cli.main import main

main()
