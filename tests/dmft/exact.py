"""Closed forms of single neurons that tests of the mean-field engine share."""

import math


def one_sided(largest, smallest, now):
    """<a relu(w)> of relu neurons after the integral of their force went to both extremes (section F (iv), exact)."""
    born = -math.pi / 2 if largest <= 0 else -math.atan(1 / math.tanh(largest))
    dies = math.pi / 2 if smallest >= 0 else math.atan(1 / math.tanh(-smallest))
    turned = (math.cos(2 * born) - math.cos(2 * dies)) * math.cosh(2 * now) / 2
    return ((dies - born) * math.sinh(2 * now) + turned) / (2 * math.pi)
