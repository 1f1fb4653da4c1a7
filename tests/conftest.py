"""Settings of the whole test run."""

import os

# Set before torch is imported: several thread pools on few cores wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
