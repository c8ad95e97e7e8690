"""``carousel gallery``: photos of the people and landmarks that captions are to name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from carousel.errors import ConfigError


class Action(StrEnum):
    ADD = "add"
    LIST = "list"
    REMOVE = "remove"


def gallery(
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="add, list or remove.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PHOTO|NAME]...",
            help="To add: photos in folders people/NAME/ or landmarks/NAME/, or such folders. To remove: names.",
        ),
    ] = None,
    folder: Annotated[Path, typer.Option("--gallery", metavar="DIR", help="The gallery, a plain folder.")] = Path(
        "gallery"
    ),
    person: Annotated[
        str | None, typer.Option("--person", metavar="NAME", help="To add: whose photos these are, wherever they lie.")
    ] = None,
    landmark: Annotated[
        str | None, typer.Option("--landmark", metavar="NAME", help="To add: of which landmark these photos are.")
    ] = None,
) -> None:
    """Add, list and remove people and landmarks that `carousel caption --gallery DIR` names."""
    if (action is Action.LIST) is bool(what):
        got, wanted = ("nothing", "photos or names") if not what else (" ".join(what), "nothing more")
        raise ConfigError(f"carousel gallery {action}: does not go with this (got {got}); {wanted}; see --help")
    from carousel.captioning.gallery import add_photos, entities, remove

    if action is Action.ADD:
        found, verb = add_photos(folder, what or [], person=person, landmark=landmark), ""
    elif action is Action.REMOVE:
        found, verb = [entity for name in what or [] for entity in remove(folder, name)], "removed "
    else:
        found, verb = entities(folder), ""
    for entity in found:
        count = len(entity.photos)
        print(f"{verb}{entity.kind}/{entity.name}: {count} photo{'' if count == 1 else 's'}")
