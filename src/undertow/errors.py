"""Every error that undertow raises on purpose.

    UndertowError
    ├── SchemaError          a table or a value does not fit its declared columns
    │   └── UnknownTable     no table of that name is declared
    ├── StateError           columns that do not make a consistent state
    │   ├── MisalignedState  two nouns speak of different universes
    │   └── MissingPrice     a held instrument has no price
    ├── RuleError            a venue's rules are impossible, unknown or incomplete
    ├── SourceError          something outside could not be read as what it claims to be
    │   ├── UnreadableFile   damaged, truncated, of an unknown format or over a size limit
    │   └── UnusableMapping  a mapping file asks for what cannot be done
    ├── StoreError           the lake cannot do what was asked
    │   ├── NoLake           there is no lake at that place
    │   ├── NoRun            no complete run was committed by that instant
    │   └── DamagedLake      a table's files and its log disagree
    ├── NotSettled           a cascade that had to come to rest was still selling
    ├── EstimationError      an estimator was given what it cannot estimate from
    ├── PolicyError          a limit or policy file is not usable
    ├── SettingsError        a settings file or variable is not usable
    └── WorkerError          work sent elsewhere failed there, could not be sent, or its worker died

A misuse is also a `ValueError`; what the world did (a cascade that does not settle, a fit on a
flat series) is never an error but a status in the result. `row`, `column`, `source` and `hint`
are attributes where they are known, so a face can render them without parsing the sentence.
"""

from __future__ import annotations


class UndertowError(Exception):
    """Root of all; `hint` says what to do next."""

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        row: int | None = None,
        column: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.row = row
        self.column = column
        self.hint = hint

    def __str__(self) -> str:
        """One line: where, what was wrong, what to do next."""
        places = [self.source] if self.source else []
        if self.row is not None:
            places.append(f"row {self.row}")
        if self.column:
            places.append(f"column {self.column}")
        line = f"{', '.join(places)}: {self.message}" if places else self.message
        line = f"{line}; {self.hint}" if self.hint else line
        return " ".join(line.split())


class SchemaError(UndertowError, ValueError):
    """A table or a value does not fit its declared columns."""


class UnknownTable(SchemaError):
    """No table of that name is declared."""


class StateError(UndertowError, ValueError):
    """Columns that do not make a consistent state."""


class MisalignedState(StateError):
    """Two nouns speak of different universes."""


class MissingPrice(StateError):
    """A held instrument has no price."""


class RuleError(UndertowError, ValueError):
    """A venue's rules are impossible, unknown or incomplete."""


class SourceError(UndertowError):
    """Something outside could not be read as what it claims to be."""


class UnreadableFile(SourceError):
    """Damaged, truncated, of an unknown format or over a size limit."""


class UnusableMapping(SourceError, ValueError):
    """A mapping file asks for what cannot be done."""


class StoreError(UndertowError):
    """The lake cannot do what was asked."""


class NoLake(StoreError):
    """There is no lake at that place."""


class NoRun(StoreError):
    """No complete run was committed by that instant."""


class DamagedLake(StoreError):
    """A table's files and its log disagree."""


class NotSettled(UndertowError):
    """A cascade that had to come to rest was still selling after its last round."""


class EstimationError(UndertowError, ValueError):
    """An estimator was given what it cannot estimate from."""


class PolicyError(UndertowError, ValueError):
    """A limit or policy file is not usable."""


class SettingsError(UndertowError, ValueError):
    """A settings file or variable is not usable."""


class WorkerError(UndertowError):
    """Work sent elsewhere failed there, could not be sent, or its worker died.

    `item` is the number of the item, or of the crew's member, that it concerns.
    """

    def __init__(self, message: str, *, item: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.item = item
