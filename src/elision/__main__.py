"""``python -m elision``, and the command ``elision``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interruption while it loads is one line, too."""
    try:
        from elision.cli.main import main as run
    except KeyboardInterrupt:
        print("elision: interrupted before it began", file=sys.stderr)
        sys.exit(130)  # as shells say it: 128 and the signal
    run()


if __name__ == "__main__":
    main()
