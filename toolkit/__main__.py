"""`python -m ehdnas` is `ehdnas`."""

import sys

from ehdnas.cli import main

sys.exit(main())
