"""The one error a user sees: what is wrong, where, and how to mend it."""

from collections.abc import Sequence


class DataError(Exception):
    """Input that cannot be used: a file, an option, a checkpoint.

    Args:
        source: File or option at fault.
        problem: What is wrong, with the value seen.
        mend: What the user can do about it.
        place: Where inside the source (`line 3`, `track 0_1_2b, frame 17`); may be empty.
    """

    def __init__(self, source: object, problem: str, mend: str, place: str = "") -> None:
        # All four go to Exception so that the error survives pickling between worker processes.
        super().__init__(str(source), problem, mend, place)
        self.source, self.problem, self.mend, self.place = (
            str(source),
            problem,
            mend,
            place,
        )

    def __str__(self) -> str:
        # What a file has in a place of a word may be all of the file.
        place, problem = (_cut(part) for part in (self.place, self.problem))
        where = f"{self.source}: {place}" if place else self.source
        text = f"{where}: {problem}; {self.mend}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_LONGEST = 400  # characters


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def check_ranges(options: str, *values: tuple[str, float, float, float]) -> None:
    """Refuses numbers out of range, and those that are none.

    Args:
        options: What the names belong to (`model.net`).
        values: Name, value, least and greatest value of each.

    Raises:
        DataError: Names the first.
    """
    for name, value, low, high in values:
        if not low <= value <= high:
            problem = f"{value} is not within {low} and {high}"
            raise DataError(f"{options}.{name}", problem, "correct the option")


def check_choice(option: str, value: object, choices: Sequence[object]) -> None:
    """Refuses what is none of the choices.

    Raises:
        DataError: Names the option.
    """
    if value not in choices:
        problem = f"{value!r} is none of {', '.join(map(str, choices))}"
        raise DataError(option, problem, "correct the option")
