"""Measure a real engine and write a calibration file; see --help."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a file from a checkout, whose root Python does not look into.
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from vllm_benchmarks.calibrate import main

    sys.exit(main())
