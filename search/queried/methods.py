"""The searches by queries, by name: two to compare with, and the project's own."""

from __future__ import annotations

from ehdnas.search.queried.evolution import regularised_evolution
from ehdnas.search.queried.guided import guided_search
from ehdnas.search.queried.random import random_search
from ehdnas.search.queried.task import Method

METHODS: dict[str, Method] = {
    "random": random_search,
    "evolution": regularised_evolution,
    "guided": guided_search,
}
