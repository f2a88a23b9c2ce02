"""Metrics, re-ranking, protocols, results, and the plumbing of runs. Imports nothing else of the project.

Import it before torch: it sets environment variables that torch and its libraries read when they are loaded.
"""

import os

# OpenMP threads wait without spinning. Spinning threads compete with the loader workers for the cores: on two cores, a
# training step then takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Use huge pages for large tensors. Otherwise page faults take half the time of augmenting a batch on a CPU.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
