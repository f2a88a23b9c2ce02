"""Metrics, re-ranking, protocols, results and other small parts that need nothing else of the project."""

import os

# Before torch is imported: its CPU threads would otherwise spin while they wait for each other, and lose their cores to
# loader processes in the middle of every parallel region; on two cores that makes a training step ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
