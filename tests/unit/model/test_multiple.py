import math

import pytest

from somaresil.model.multiple import benjamini_hochberg, holm


def test_the_textbook_example():
    """Four p-values, by hand: 4, 3, 2 and 1 times, never falling; and 4/1, 4/2, 4/3, 4/4 times, never rising."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
def test_one_test_and_none_stay_as_they_are(adjust):
    assert adjust([]) == []
    assert adjust([0.2]) == [0.2]
    assert adjust([1.0, 1.0]) == [1.0, 1.0]


@pytest.mark.parametrize("adjust", [holm, benjamini_hochberg])
@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(adjust, wrong):
    with pytest.raises(ValueError, match="p-value"):
        adjust([0.5, wrong])


def test_the_ends_of_the_range_are_p_values():
    """And a tie keeps its order."""
    assert holm([0.0, 1.0, 0.5]) == [0.0, 1.0, 1.0]
    assert benjamini_hochberg([0.0, 1.0, 0.5]) == [0.0, 1.0, 0.75]
    assert holm([0.4, 0.3]) == [0.6, 0.6]
    assert benjamini_hochberg([0.9, 0.8, 0.7]) == pytest.approx([0.9, 0.9, 0.9])
