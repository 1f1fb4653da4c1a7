"""``python -m edgeprune``."""

from edgeprune.cli.app import main

if __name__ == "__main__":
    main()
