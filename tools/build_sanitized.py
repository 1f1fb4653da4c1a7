"""Builds the kernels with AddressSanitizer and UndefinedBehaviorSanitizer into a folder.

python tools/build_sanitized.py build/sanitized
"""

import argparse
from pathlib import Path

from edgeprune.kernels.compilation import build_kernels

# A finding ends the program, so that no test can pass over it.
FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def main() -> None:
    """Build them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    build_kernels(parser.parse_args().folder, FLAGS)


if __name__ == "__main__":
    main()
