"""The exception for unusable input: what is wrong, where, and how to fix it."""

from collections.abc import Sequence


class DataError(Exception):
    """Input that cannot be used: a file, an option or a checkpoint.

    Args:
        source: File or option at fault.
        problem: What is wrong, including the value found.
        fix: What the user can do about it.
        place: Location inside the source (`line 3`, `track 0_1_2b, frame 17`); may be empty.
    """

    def __init__(self, source: object, problem: str, fix: str, place: str = "") -> None:
        # Exception gets all four, so that the error can be pickled between worker processes.
        super().__init__(str(source), problem, fix, place)
        self.source, self.problem, self.fix, self.place = (
            str(source),
            problem,
            fix,
            place,
        )

    def __str__(self) -> str:
        # A value quoted from a damaged file can be as long as the file.
        place, problem = (_cut(part) for part in (self.place, self.problem))
        where = f"{self.source}: {place}" if place else self.source
        text = f"{where}: {problem}; {self.fix}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_LONGEST = 400  # characters


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def check_ranges(options: str, *values: tuple[str, float, float, float]) -> None:
    """Checks that options lie within their ranges; NaN never does.

    Args:
        options: Prefix of the option names (`model.net`).
        values: Name, value, minimum and maximum (inclusive) of each option.

    Raises:
        DataError: A value is out of range; names the first.
    """
    for name, value, low, high in values:
        if not low <= value <= high:
            problem = f"must be between {low} and {high}, got {value}"
            raise DataError(f"{options}.{name}", problem, "correct the option")


def check_choice(option: str, value: object, choices: Sequence[object]) -> None:
    """Checks that an option has one of the allowed values.

    Raises:
        DataError: It does not; names the option.
    """
    if value not in choices:
        problem = f"must be one of {', '.join(map(str, choices))}, got {value!r}"
        raise DataError(option, problem, "correct the option")
