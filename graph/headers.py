"""Headers as ASGI spells them: pairs of bytes, names in lower case.

For what runs at every picture; Starlette's `Headers` read better everywhere else.
"""

from starlette.types import Scope


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return all values of a header of a request, in their order.

    Args:
        scope: The request's.
        name: In lower case.
    """
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
