"""Findings of the doctor: a line each, printed when it is found."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from utils.run.errors import UserError, single_errors

MOST_LINES = 20  # of one check; the rest is counted


class Report:
    """Prints findings and counts them by their level: ok, warning or error."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self._said: set[str] = set()  # both splits find what they share

    def ok(self, text: str) -> None:
        self._add("ok", [text])

    def warning(self, *texts: str) -> None:
        self._add("warning", texts)

    def error(self, *texts: str) -> None:
        self._add("error", texts)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the block refuses are errors; the program goes on after it."""
        try:
            yield
        except UserError as error:
            self.error(*map(str, single_errors(error)))

    def _add(self, level: str, texts: Iterable[str]) -> None:
        texts = [text for text in (" ".join(text.split()) for text in texts) if text not in self._said]
        self._said.update(texts)
        self.counts[level] += len(texts)
        for text in texts[:MOST_LINES]:
            print(f"{level:<7}  {text}", flush=True)
        if len(texts) > MOST_LINES:
            print(f"{level:<7}  ... and {len(texts) - MOST_LINES} more like these {MOST_LINES}", flush=True)

    @property
    def verdict(self) -> str:
        errors, warnings = self.counts["error"], self.counts["warning"]
        found = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        return f"{found}: a run {'would not start, or not end' if errors else 'can start'}"
