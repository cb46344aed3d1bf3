"""What goes wrong between this program and its host, as lines for the user."""

from collections.abc import Iterable


class DatapathError(Exception):
    """``problems`` has one line for each thing that must be put right; nothing was changed."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
