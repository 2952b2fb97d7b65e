"""Run the command line as ``python -m emcube``."""

from emcube.cli import main

raise SystemExit(main())
