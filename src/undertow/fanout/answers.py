"""What a worker gives back: a value, or an error in a shape that can travel."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from undertow.errors import UndertowError, WorkerError

IMPORTABLE = "define it at the top of a module, and send plain data"


class Answer(NamedTuple):
    """What a member gave back: a value, or the error it failed with."""

    value: Any = None
    error: UndertowError | None = None
    died: bool = False  # the worker is gone, and its state with it


def opened(answer: Answer, subject: str, number: int | None, where: str = "") -> Any:
    """The value of an answer; or its error, raised with whom it concerns."""
    if answer.error is None:
        return answer.value
    if isinstance(answer.error, WorkerError) and answer.error.item is None:
        answer.error.item = number
        answer.error.source = f"{subject} {where}".strip()
    else:
        answer.error.add_note(f"raised by {subject} {where}".strip())
    raise answer.error


def tried(act: Callable[[], Any]) -> Answer:
    """What `act` gives, or how it failed, in a shape that can travel."""
    try:
        return Answer(act())
    except UndertowError as error:
        return Answer(error=error if _travels(error) else foreign(error))
    except (Exception, SystemExit) as error:
        return Answer(error=foreign(error))


def foreign(error: BaseException) -> WorkerError:
    """An error of another house, as ours; its traceback goes along as a note."""
    told = WorkerError(f"{type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)).rstrip())
    told.__cause__ = error  # does not travel; the note does
    return told


def _travels(error: UndertowError) -> bool:
    """Whether an error survives pickling, as one with its own `__init__` may not."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False


def packed(thing: Any, what: str) -> bytes:
    """Pickled for another process; what cannot be is a misuse, said in words."""
    try:
        return pickle.dumps(thing, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as exc:  # what pickle raises depends on what it meets
        raise unsendable(what, exc) from exc


def unsendable(what: str, exc: Exception) -> WorkerError:
    """The error of something that pickle refused."""
    return WorkerError(f"{what} cannot be sent to another process ({exc})", hint=IMPORTABLE)


def death(how: str, hint: str | None = None) -> Answer:
    """The answer that will never come, because its worker is gone."""
    return Answer(error=WorkerError(f"its worker died ({how})", hint=hint), died=True)


def called(member: Any, method: str, args: tuple[Any, ...]) -> Any:
    """What the member's method gives."""
    return getattr(member, method)(*args)
