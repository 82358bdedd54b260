"""Why a call doesn't fit a function's signature, in words. No value is told: who reads them may be allowed none."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def misfits(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """All that is wrong with a call that ``signature.bind()`` has refused, as parts of one sentence."""
    return "; ".join([*_too_many(signature, args), *_badly_named(signature, args, kwargs)])


def _too_many(signature: Signature, args: Sequence[Any]) -> Iterator[str]:
    taken = len(_named(signature, _BY_POSITION))
    if len(args) > taken and not _named(signature, (Parameter.VAR_POSITIONAL,)):
        yield f"it takes {taken or 'no'} {'argument' if taken == 1 else 'arguments'} by position, and has {len(args)}"


def _badly_named(signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[str]:
    by_position, by_name = _named(signature, _BY_POSITION), _named(signature, _BY_NAME)
    given = by_position[: len(args)]
    has_rest = bool(_named(signature, (Parameter.VAR_KEYWORD,)))
    if unknown := [] if has_rest else [name for name in kwargs if name not in {*by_position, *by_name}]:
        yield f"there is no argument {_listed(unknown, 'or')}"
    if unnamed := [] if has_rest else [name for name in kwargs if name in by_position and name not in by_name]:
        yield f"{_listed(unnamed)} can be given by position only"
    if twice := [name for name in given if name in kwargs and name in by_name]:
        yield f"{_listed(twice)} {'is' if len(twice) == 1 else 'are'} given by position and by name"
    named = {*given, *(name for name in kwargs if name in by_name)}
    if missing := [name for name in _required(signature) if name not in named]:
        yield f"{_listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"


def _required(signature: Signature) -> list[str]:
    return [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (*_BY_POSITION, *_BY_NAME) and parameter.default is Parameter.empty
    ]


def _named(signature: Signature, kinds: Collection[Any]) -> list[str]:
    return [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]


def _listed(names: Sequence[str], word: str = "and") -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} {word} {last}" if others else last
