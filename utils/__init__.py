"""Metrics, re-ranking, protocols, results and other small parts that need nothing else of the project."""

import os

# Before torch is imported: its CPU threads would otherwise spin while they wait for each other, and lose their cores to
# loader processes in the middle of every parallel region; on two cores that makes a training step ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Large tensors in large pages: otherwise page faults take half the time of augmenting a batch on a CPU.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
