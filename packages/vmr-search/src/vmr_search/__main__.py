"""``python -m vmr_search`` is ``vmr-search``."""

import sys

from vmr_search.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
