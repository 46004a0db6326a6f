"""Small words that depend on numbers."""


def counted(number: int, noun: str) -> str:
    """Say how many, as `1 file` and `2 files`; for nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
