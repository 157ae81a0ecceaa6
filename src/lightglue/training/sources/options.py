"""What a source of training images is. Importing this loads neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import expanduser
from typing import Literal, get_args

from lightglue.errors import InputError
from lightglue.options import option
from lightglue.support.checks import check_choice, is_real

__all__ = ["KINDS", "TEACHERS", "SourceKind", "SourceOptions", "Teacher"]

SourceKind = Literal["images", "model", "depth"]
Teacher = Literal["auto", "lightglue", "nearest"]
KINDS: tuple[str, ...] = get_args(SourceKind)
TEACHERS: tuple[str, ...] = get_args(Teacher)


@dataclass(frozen=True)
class SourceOptions:
    """Images to learn from."""

    kind: SourceKind = option("images", "images: a folder; model: of COLMAP, or a map; depth: MegaDepth's layout.")
    path: str = option("", "The folder of the images, of the model or map, or of scene_info.")
    weight: float = option(1.0, "How often it is drawn from, beside the others.")
    name: str = option("", "In reports; by default that of the folder.")
    images: str | None = option(None, "Folder that a model's image names are relative to, where it is not beside it.")
    teacher: Teacher = option("auto", "Who matches the images of a model; auto: LightGlue if it knows the features.")

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_choice("teacher", self.teacher, TEACHERS)
        for name in ("path", "name"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} of a source is {getattr(self, name)!r:.80}; give a text.")
        if not self.path:
            raise InputError("A source has no path; name a folder of images, a COLMAP model or a map.")
        if self.images is not None and not isinstance(self.images, str):
            raise InputError(f"images of a source is {self.images!r:.80}; give a folder.")
        for name in ("path", "images"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, expanduser(getattr(self, name)))
        if not is_real(self.weight, 0) or self.weight == 0:
            raise InputError(f"weight of the source {self.path} is {self.weight!r}; give a number above 0.")
        if "#" in self.name or "/" in self.name or "\n" in self.name:
            raise InputError(f"name of a source is {self.name!r}; leave '#', '/' and line breaks out.")
