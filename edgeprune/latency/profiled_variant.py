"""A measured variant of a network: what was profiled, and what the whole took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeprune.formats import DENSE, DENSE_INT8, Formats
from edgeprune.latency.attribution import Part
from edgeprune.latency.signature import Bucket

# A kind of part, and the family of formats that its layers have.
Kind = tuple[str, str]

# Those that the runtime's own kernels run.
DENSE_FAMILIES = frozenset({DENSE.family, DENSE_INT8.family})


@dataclass(frozen=True)
class Variant:
    """A measured variant.

    Attributes:
        levels: Level of every structure.
        profiles: Repeated per-layer profiles, in microseconds by bucket.
        disturbed: Of each profile, time on the wall over time on the processor.
        total_us: Unprofiled time of the whole model.
        formats: Of the layers that are not dense.
        conversions: Of each profile, microseconds by the site that they were for.
        leftovers: By bucket, the emptied structures of which it runs what is left.
    """

    levels: dict[str, int]
    profiles: tuple[dict[Bucket, float], ...]
    disturbed: tuple[float, ...]
    total_us: float
    formats: Formats = field(default_factory=dict)
    conversions: tuple[dict[str, float], ...] = ()
    leftovers: Mapping[Bucket, Sequence[str]] = field(default_factory=dict)

    @property
    def timed(self) -> tuple[tuple[dict[Bucket, float], dict[str, float]], ...]:
        """Each profile with its conversions."""
        conversions = self.conversions or ({},) * len(self.profiles)
        return tuple(zip(self.profiles, conversions, strict=True))

    def kind(self, part: Part) -> Kind:
        """The kind of a part in this variant."""
        return part.kind, part.family(self.formats)

    def sizes(self, part: Part) -> list[int]:
        """The sizes of a part in this variant."""
        return part.sizes(self.levels, self.formats)

    def gone(self, part: Part) -> bool:
        """Whether nothing is left of a part but what its structures leave behind."""
        return 0 in part.sizes(self.levels)

    def unread(self, part: Part) -> bool:
        """Whether nothing reads what a part makes, which then is not run."""
        return part.unread(self.levels)
