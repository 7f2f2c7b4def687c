"""What a user may set once: from `undertow.toml`, from the environment, or not at all.

The environment (`UNDERTOW_LAKE=...`) wins over the file, an option on the command line over both.
Only the two faces read this.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from undertow.errors import SettingsError

FILE = "undertow.toml"


class Settings(BaseSettings):
    """Frozen settings; a key that is not listed here is refused."""

    model_config = SettingsConfigDict(
        env_prefix="UNDERTOW_", toml_file=FILE, frozen=True, extra="forbid"
    )

    lake: str = "undertow-lake"
    seed: int = 7
    largest_file_mib: int = 20480
    longest_line_mib: int = 1

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings() -> Settings:
    """The settings in force in this folder.

    Raises
    ------
    SettingsError
        When the file is no TOML, or holds an unknown key or a value of the wrong type.
    """
    try:
        _refuse_misspelled(_names())
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        variable = f"UNDERTOW_{where.upper()}"
        raise SettingsError(
            f"{where}: {first['msg']}",
            source=f"the variable {variable}" if variable in os.environ else FILE,
            hint=f"known are {', '.join(_names())}",
        ) from None
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(str(error), source=str(Path(FILE)), hint="mend or remove it") from error


def _refuse_misspelled(known: list[str]) -> None:
    """A variable that is nearly a setting is one, misspelled; others may be somebody else's."""
    for name in sorted(os.environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        if name.startswith("UNDERTOW_") and name not in known and near:
            raise SettingsError(
                f"the environment sets {name}, which is no setting", hint=f"is it {near[0]}?"
            )


def _names() -> list[str]:
    return [f"UNDERTOW_{name.upper()}" for name in Settings.model_fields]
