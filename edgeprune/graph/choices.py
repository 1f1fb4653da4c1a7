"""What a plan chooses from: a level of every structure, and an option of formats at every site."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from edgeprune.formats import Format
from edgeprune.graph.sites import Option, Site

Plan = Mapping[str, int]


@dataclass(frozen=True)
class Choices:
    """The alternatives of a network. A plan maps names to levels, and sites to places of options.

    Attributes:
        levels: Ascending levels of each structure; the last is all of it.
        sites: Sites by name; those that are left out are dense.
        options: The options of each site; the first is dense.
        forced: Levels that every plan has, of structures of which nothing else is searched.
    """

    levels: Mapping[str, tuple[int, ...]]
    sites: Mapping[str, Site] = field(default_factory=dict)
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    forced: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def offered(self) -> dict[str, tuple[int, ...]]:
        """By structure its levels, by site the places of its options."""
        places = {name: tuple(range(len(options))) for name, options in self.options.items()}
        return {**self.levels, **places}

    def levels_of(self, plan: Plan) -> dict[str, int]:
        """A plan's structures alone."""
        return {name: level for name, level in plan.items() if name not in self.sites}

    def formats_of(self, plan: Plan) -> dict[str, Format]:
        """The formats of a plan's layers that are not dense."""
        return {
            layer: format_
            for name, place in plan.items()
            if name in self.sites and place
            for layer, format_ in zip(self.sites[name].layers, self.options[name][place])
        }

    def place(self, site: str, formats: Mapping[str, Format]) -> int | None:
        """Which of a site's options some layers' formats are, if any."""
        wanted = tuple(formats.get(layer, Format()) for layer in self.sites[site].layers)
        options = self.options[site]
        return options.index(wanted) if wanted in options else None
