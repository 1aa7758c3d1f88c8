"""The error for everything a user can put right."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What was given cannot be used; the message says what, where, and what to do, and the command line prints it."""


class BadFile(InputError):
    """A file is missing, damaged, of another kind, or holds what it should not."""


class Interrupted(KeyboardInterrupt):
    """Training was told to stop, and has kept what it could; the message says how to go on."""

    def __init__(self, signal: int, message: str):
        super().__init__(message)
        self.signal = signal
        """Its number: SIGINT or SIGTERM."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known ones, or all of them.

    >>> nearest("adam", ["adamw", "sgd"])
    '; the nearest: adamw'
    """
    known = sorted(known)
    if close := difflib.get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; the nearest: {', '.join(close)}"
    return f"; there are: {', '.join(known[:16])}{' …' if len(known) > 16 else ''}" if known else ""
