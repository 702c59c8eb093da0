"""The command line, called in this process."""

from elision.cli import main as cli


def run(line: str) -> int:
    """Run a command; its exit status."""
    try:
        cli.main(line.split())
    except SystemExit as end:
        return int(end.code or 0)
    return 0
