"""Imports that a test can do without: exits with ctest's code for a skipped test when they are not installed."""

import importlib
import sys

SKIPPED = 77


def require(*names, install="scripts/setup --python"):
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            print(f"skipped: cannot import {name} ({error}); {install} installs it")
            sys.exit(SKIPPED)
