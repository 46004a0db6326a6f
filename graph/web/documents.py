"""The operations of our own pages: they are trusted documents as well."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from graphql import GraphQLSyntaxError, OperationDefinitionNode, parse

from graph.web.assets import page_bundle

_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|(?:\bconst\s+(?P<name>\w+)\s*=\s*)?"""
    r"""(?:'(?:[^'\\\n]|\\.)*'|`(?P<template>(?:[^`\\]|\\.)*)`|"(?P<string>(?:[^"\\\n]|\\.)*)")""",
    re.DOTALL,
)
"""Comments and string literals of JavaScript, with the name of the constant that holds them."""

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
_BEGINNINGS = ("query", "mutation", "subscription", "{", "fragment", "#")


@cache
def page_documents() -> Sequence[str]:
    """Return the texts of all operations that the study browser sends. Reads files."""
    constants, texts = {}, []
    for name, asset in page_bundle().files.items():
        if name.endswith(".js"):
            for constant, text in _literals(asset.body.decode()):
                constants[constant] = text
                texts.append(text)
    written = [_filled(text, constants) for text in texts]
    return list(dict.fromkeys(text for text in written if _is_document(text)))


def _literals(script: str) -> Iterator[tuple[str, str]]:
    """Yield name, or `""`, and text of string literals that look like GraphQL, or may be a part."""
    for match in _LITERAL.finditer(script):
        text = match["template"] or match["string"] or ""
        is_text = match["name"] or text.lstrip().startswith((*_BEGINNINGS, "${"))
        if is_text and "\\" not in text:
            yield match["name"] or "", text


def _filled(text: str, constants: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: constants.get(match[1], match[0]), text)


def _is_document(text: str) -> bool:
    try:
        document = parse(text)
    except GraphQLSyntaxError:
        return False
    return any(isinstance(one, OperationDefinitionNode) for one in document.definitions)
