"""Sweeps: rows of overrides × seeds × RegDB trials, each a run of ``main.py``; tables of their results."""
