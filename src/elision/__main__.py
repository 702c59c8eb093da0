"""``python -m elision``."""

from elision.cli.main import main

if __name__ == "__main__":
    main()
