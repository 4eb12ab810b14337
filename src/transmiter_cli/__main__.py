"""Entry point of the installed command, and of python -m transmiter_cli."""

import sys


def main() -> None:
    """Run the command. Ctrl-C while it is being imported ends it as one does later."""
    try:
        from transmiter_cli.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
