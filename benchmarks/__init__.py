"""What we measure against peers. Compiled modules are kept, as on a user's machine: without them imports dominate."""

import os

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
