"""Programs of benchmarks/ stand outside of any package; their tests import them by file name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
