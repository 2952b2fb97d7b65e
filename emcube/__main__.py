"""Run the command line as ``python -m emcube``."""

from emcube.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
