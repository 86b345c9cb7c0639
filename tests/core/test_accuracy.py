"""Standard errors of accuracies, against what drawing them over and over gives."""

import numpy as np
import pytest

from ehdnas.core.accuracy import difference_error, standard_error


def test_the_formulas_are_what_drawn_accuracies_spread_by():
    rng = np.random.default_rng(0)
    first, second = rng.binomial(300, 0.9, (2, 20_000)) / 300
    assert standard_error(0.9, 300) == pytest.approx(first.std(), rel=0.03)
    assert difference_error(0.9, 300) == pytest.approx((first - second).std(), rel=0.03)
