"""How one description of an operation becomes a method of both clients.

A resource class is written once; `Resource[Blocking]` is what `Client` has and `Resource[Async]` what
`AsyncClient` has. The descriptors here look at which of the two they are on: the same attribute is a plain
function there, and here one to await or to iterate with `async for`. Type checkers see the difference.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from datapruner.client import _wire
from datapruner.client._request import Request
from datapruner.client._session import Session
from datapruner.schemas.common import Page

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Of methods that return when they are done."""


class Async:
    """Of methods that are awaited."""


Kind = TypeVar("Kind", Blocking, Async)


class Resource(Generic[Kind]):
    """Methods about one kind of thing."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._session.wire.http.base_url}>"


class Call(Generic[P, T]):
    """A method that gives one result."""

    def __init__(self, function: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, resource: Resource[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[Async], owner: type) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> Call[P, T]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        return self if resource is None else _method(resource._session, self._function, _wire.run)


class Iteration(Generic[P, T]):
    """A method that gives results one after another, asking for them as they are wanted."""

    def __init__(self, function: Callable[Concatenate[Session, P], AsyncGenerator[T]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, resource: Resource[Blocking], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, resource: Resource[Async], owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, resource: None, owner: type) -> Iteration[P, T]: ...
    def __get__(self, resource: Resource[Any] | None, owner: type) -> Any:
        return self if resource is None else _method(resource._session, self._function, _wire.iterate)


def ask(describe: Callable[P, Request[T]]) -> Call[P, T]:
    """The method that sends one request."""

    async def function(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await session.ask(describe(*args, **kwargs))

    functools.update_wrapper(function, describe)
    return Call(function)


def walk(describe: Callable[P, Request[Page[T]]]) -> Iteration[P, T]:
    """The method that goes through a listing, page by page."""

    async def function(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        request = describe(*args, **kwargs)
        cursor: str | None = None
        while True:
            page = await session.ask(request.asking(cursor=cursor))
            for item in page.items:
                yield item
            if page.next is None:
                return
            cursor = page.next

    functools.update_wrapper(function, describe)
    return Iteration(function)


def _method(
    session: Session, function: Callable[..., Any], carried_out: Callable[[Any], Any]
) -> Callable[..., Any]:
    """`function` on the session, on a blocking wire `carried_out`. It has the name, documentation and
    parameters of what it calls, for people who ask for help."""
    bound: Callable[..., Any] = functools.partial(function, session)
    if isinstance(session.wire, _wire.BlockingWire):
        suspending = bound

        def bound(*args: Any, **kwargs: Any) -> Any:
            return carried_out(suspending(*args, **kwargs))

    functools.update_wrapper(bound, function)
    described = inspect.unwrap(function)
    signature = inspect.signature(described)
    parameters = list(signature.parameters.values())
    if described is function:  # it takes a session first
        parameters = parameters[1:]
    bound.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return bound
