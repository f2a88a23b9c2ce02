"""The inner loops of scoring: compiled where numba can be used, else in NumPy."""

try:
    from utils.kernels_numba import jaccard_blend, query_figures, row_maxima, row_means, smallest, take_columns
except (ImportError, RuntimeError):  # not installed for this Python, or nowhere to keep what it compiles
    from utils.kernels_numpy import jaccard_blend, query_figures, row_maxima, row_means, smallest, take_columns

__all__ = ["jaccard_blend", "query_figures", "row_maxima", "row_means", "smallest", "take_columns"]
