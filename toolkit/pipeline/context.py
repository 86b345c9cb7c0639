"""What the stages share: the settings as the user gave them, and what follows from them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from ehdnas.core.device import Device
from ehdnas.core.errors import UsageError
from ehdnas.core.images.dataset import Dataset, load_data
from ehdnas.pipeline.boards import find_boards
from ehdnas.pipeline.conditions import TABLE
from ehdnas.pipeline.devices import find_device
from ehdnas.pipeline.reporter import Reporter
from ehdnas.pipeline.tables import shape_of_table
from ehdnas.profilers.base import TableProfiler, find_profiler
from ehdnas.search.augment import Augmentation
from ehdnas.search.compute import Compute, find_compute
from ehdnas.search.loop import Loop
from ehdnas.search.predictor.facts import SpaceFacts, facts_of
from ehdnas.search.processes import current
from ehdnas.search.recipes import Recipe, recipe_for
from ehdnas.search.spaces.base import NetworkShape, Space, find_space
from ehdnas.settings import PROJECT_SETTINGS, Settings, absolute_data
from ehdnas.workspace import Workspace

DEFAULT_DEVICE = "ehdnas-generic"
UNMAPPED = "unmapped"
"""What `exclude` says for "the choices that would not map on the device"."""
# Networks of the size each data set is usually judged with; 224 pixels need the ImageNet stem.
_SIZES = {"digits": (8, 5), "cifar10": (16, 8), "images": (16, 8), "imagenet": (48, 14)}
_IMAGENET_STEM_FROM = 128


@dataclass(frozen=True)
class Context:
    """Settings, workspace and reporter, with what is derived from them made once, when first asked for.

    `flags` are the settings that were given as flags of the command.
    """

    settings: Settings
    workspace: Workspace
    reporter: Reporter
    flags: frozenset[str] = frozenset()
    said: set[str] = field(default_factory=set)

    @cached_property
    def space(self) -> Space:
        """The search space, without the choices that the settings exclude."""
        # The search turns "unmapped" into names; until then it leaves nothing out.
        names = {name.strip() for name in self.settings.exclude.split(",")} - {"", UNMAPPED}
        return find_space(self.settings.space).without(frozenset(names))

    @cached_property
    def dataset(self) -> Dataset:
        """The images, loaded."""
        return load_data(self.settings.data, self.settings.seed, self.settings.image_size)

    @property
    def kind(self) -> str:
        """The kind of data set: `digits`, `cifar10` or `images`."""
        return self.settings.data.partition(":")[0]

    @property
    def usual(self) -> str:
        """Whose usual network size and recipe suit the data: its kind's, or `imagenet` for large images."""
        return "imagenet" if min(self.dataset.image_shape[1:]) >= _IMAGENET_STEM_FROM else self.kind

    @property
    def facts(self) -> SpaceFacts:
        """The space's graphs and what its choices cost at this size, by their layers."""
        return _facts(self.space, self.shape)

    @cached_property
    def shape(self) -> NetworkShape:
        """The size of the networks: that of an imported table's, else as set, else what suits the data.

        Raises:
            UsageError: the space has no networks of that size, or a flag asks a table for another one.
        """
        if (tabled := self._tabled_shape()) is not None:
            self._require_size(tabled)
            return tabled
        image = self.dataset.image_shape
        channels, cells = {**_SIZES, **self.space.sizes}[self.usual]
        shape = NetworkShape(
            channels=self.settings.channels or channels,
            cells=self.settings.cells or cells,
            image=image,
            classes=self.dataset.num_classes,
            stem="imagenet" if self.usual == "imagenet" else "cifar",
        )
        self.space.check_shape(shape)
        return shape

    @cached_property
    def device(self) -> Device:
        """The device: as set, else the only one profiled here, else the built-in simulated default."""
        device = self._found[0]
        return codesigned(device) if self.settings.codesign else device

    def each_device(self) -> list[Context]:
        """Return a context for each device that the settings name, comma-separated, in that order.

        Boards of one device count as that device, and are measured on together.

        Raises:
            UsageError: one of them is unknown.
        """
        named: dict[str, list[str]] = {}
        for name in (name.strip() for name in (self.settings.device or "").split(",")):
            if name:
                named.setdefault(find_device(name).family, []).append(name)
        return [self.having(device=",".join(own)) for own in named.values()] if len(named) > 1 else [self]

    def having(self, **settings: Any) -> Context:
        """Return the context with other settings, none of them of the data: those are not loaded again."""
        other = replace(self, settings=self.settings.model_copy(update=settings))
        if "dataset" in vars(self):
            vars(other)["dataset"] = self.dataset
        return other

    @property
    def boards(self) -> list[Device]:
        """Where things are measured: the device itself, or the boards of it."""
        return [self.device] if self.device.simulated else self._found[1]

    @cached_property
    def _found(self) -> tuple[Device, list[Device]]:
        return find_boards(self.settings.device or self._only_profiled() or DEFAULT_DEVICE)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the data set, with the settings laid over it."""
        given = {
            "search_epochs": self.settings.search_epochs,
            "train_epochs": self.settings.train_epochs,
            "batch_size": self.settings.batch_size,
            "train_batch_size": self.settings.batch_size,
            "micro_batches": self.settings.micro_batches or current().count,
            "relaxation": self.settings.relaxation,
            "unrolled": self.settings.unrolled,
            "learning_rate": self.settings.learning_rate,
            "train_learning_rate": self.settings.learning_rate,
            "ema": self.settings.ema,
            "label_smoothing": self.settings.label_smoothing,
            "mixup": self.settings.mixup,
        }
        return recipe_for(self.usual).model_copy(update={k: v for k, v in given.items() if v is not None})

    @cached_property
    def compute(self) -> Compute:
        """Where search and training compute.

        Raises:
            UsageError: the settings ask for a GPU that is not there.
        """
        return find_compute(current().place(self.settings.compute), self.settings.precision)

    @property
    def computing(self) -> str:
        """Where and by how many processes, for the user."""
        count = current().count
        return str(self.compute) if count == 1 else f"{self.compute}, by {count} processes"

    @cached_property
    def augmentation(self) -> Augmentation:
        """How training images are varied."""
        side = min(self.shape.image[1:])
        usual = Augmentation.for_size(side, self.recipe.flip, self.dataset.mean, self.dataset.std)
        return usual if self.recipe.cutout else replace(usual, cutout=0)

    def say_data(self) -> None:
        """Say what the images are and how they were split; once, by the first stage that learns from them."""
        if "dataset" in self.said:
            return
        self.said.add("dataset")
        dataset = self.dataset
        _, height, width = dataset.image_shape
        self.reporter.say(
            f"data: {self.settings.data}, {len(dataset.train)} training and {len(dataset.test)} test images "
            f"of {height}x{width} in {dataset.num_classes} classes; {'; '.join(dataset.notes)}"
        )

    def remember(self) -> None:
        """Keep data, space and size for the next command in this project."""
        chosen = self.settings.model_dump(include=set(PROJECT_SETTINGS), exclude_none=True)
        self.workspace.remember(chosen | {"data": absolute_data(self.settings.data)})

    def say_resumed(self, stage: str, done: int, loop: Loop) -> None:
        """Say where a stage that was asked to go on does go on."""
        total = loop.epochs * loop.steps
        text = f"going on after step {done} of {total}" if done else "nothing was saved; from the first step"
        self.reporter.say(f"{stage}: {text}")

    def identity(self, **more: Any) -> dict[str, Any]:
        """Return what a stage's result depends on, as JSON-able data: equal identities, equal results."""
        return {
            "data": self.dataset.fingerprint(),
            "space": self.space.name,
            "exclude": self.settings.exclude,
            "shape": str(self.shape),
            "recipe": self.recipe.model_dump(),
            "seed": self.settings.seed,
            **more,
        }

    def _tabled_shape(self) -> NetworkShape | None:
        with suppress(UsageError):  # which device is meant is asked again where it matters
            device = self._found[0]
            if device.kind == TABLE:
                return shape_of_table(device)
        return None

    def _require_size(self, tabled: NetworkShape) -> None:
        """Raise UsageError where a flag says another size; what files say may be for other devices."""
        for flag, has in (("channels", tabled.channels), ("cells", tabled.cells)):
            asked = getattr(self.settings, flag)
            if flag in self.flags and asked != has:
                raise UsageError(
                    f"--{flag} {asked}: table '{self.device.name}' is of networks of shape {tabled}; leave "
                    f"--{flag} out, or choose another device"
                )

    def _only_profiled(self) -> str | None:
        # After the device's own name, which may have dashes: space, shape, metric and conditions.
        files = self.workspace.predictors.glob("*.safetensors")
        found = sorted({path.name.rsplit("--", 4)[0] for path in files})
        if len(found) > 1:
            raise UsageError(
                f"several devices are profiled here: {', '.join(found)}; choose one with --device"
            )
        return found[0] if found else None


@lru_cache(maxsize=8)
def _facts(space: Space, shape: NetworkShape) -> SpaceFacts:
    return facts_of(space, shape)  # a second or two, in which every layer is traced: once in a process


def codesigned(device: Device) -> Device:
    """Return a simulated device whose accelerator is designed anew for every network.

    Raises:
        UsageError: the device is real, or its accelerator is a fixed one.
    """
    profiler = find_profiler(device) if device.simulated else None
    if not isinstance(profiler, TableProfiler):
        raise UsageError(f"device '{device.name}' is real: only a simulated accelerator can be designed anew")
    return profiler.codesigned()
