"""What a model learns from a subset, against what it learns from the same number of other tokens."""

import os

# Before torch is loaded, which asks once: threads that wait must not spin, or any other busy process makes a
# training take several times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
