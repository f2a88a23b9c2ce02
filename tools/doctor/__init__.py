"""Says what is in the way of a run before it is started: ``python -m tools.doctor --cfg FILE [KEY VALUE ...]``."""
