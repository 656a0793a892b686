"""Deals the positions of a sequence out to several members, each with an exact share.

The sequence is the solution of the chairman assignment problem by R. Tijdeman ("The chairman
assignment problem", Discrete Mathematics 32, 1980): member i, whose share is x, has had n * x turns
after n turns, within less than one. In any window of n turns it has n * x turns, within less than
two. Nothing is random, so that every process computes the same sequence from the weights alone.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

# The sequence repeats after at most this number of turns. Shares that need more are rounded.
PERIOD = 10_000


class Turns:
    """Says whose turn each position of an endless sequence is.

    Attributes:
        shares: number of turns of each member in a period.
        period: number of turns after which the sequence repeats.
    """

    def __init__(self, weights: Sequence[float]):
        """Computes one period of the sequence.

        Args:
            weights: weight of each member, in proportion to its share; above 0. Shares are exact
                if weights have a common denominator of at most `PERIOD`. Otherwise they are rounded
                to whole parts of `PERIOD`, and each is at least one part.
        """
        self.shares = whole_shares(weights)
        self.period = sum(self.shares)
        self._members = np.array(_assign(self.shares), np.int32)
        # Row n holds how many of the first n turns each member has.
        each = self._members[:, None] == np.arange(len(weights))
        self._before = np.concatenate([np.zeros((1, len(weights)), int), each.cumsum(0)])

    def at(self, position: int) -> tuple[int, int]:
        """Returns whose turn `position` is, and how many turns this member has had before."""
        cycle, place = divmod(position, self.period)
        member = int(self._members[place])
        return member, cycle * self.shares[member] + int(self._before[place, member])

    def counts(self, position: int) -> list[int]:
        """Returns how many turns each member has before `position`."""
        cycle, place = divmod(position, self.period)
        return [
            cycle * share + before
            for share, before in zip(self.shares, self._before[place].tolist(), strict=True)
        ]


def whole_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Returns whole numbers in proportion to `weights`, whose sum is at most about `PERIOD`.

    See `Turns` for how they are rounded.
    """
    # 0.1 stands for a tenth, and not for the nearest number in base two.
    exact = [Fraction(str(weight)) for weight in weights]
    common = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * common) for weight in exact]
    divisor = math.gcd(*whole)
    if sum(whole) // divisor <= PERIOD:
        return tuple(share // divisor for share in whole)
    wanted = [weight * PERIOD / sum(exact) for weight in exact]
    rounded = [max(1, int(share)) for share in wanted]
    missing = sorted(range(len(wanted)), key=lambda i: rounded[i] - wanted[i])
    for i in missing[: max(0, PERIOD - sum(rounded))]:
        rounded[i] += 1
    return tuple(rounded)


def _assign(shares: Sequence[int]) -> list[int]:
    """Returns whose turn each position of a period is."""
    if len(shares) == 1:
        return [0] * shares[0]
    period, slack = sum(shares), 2 * len(shares) - 2
    had, turns = [0] * len(shares), []

    def deadline(member: int) -> Fraction:
        """Returns the number of turns after which this member would have had too few."""
        return Fraction(period * (slack * (1 + had[member]) - 1), slack * shares[member])

    for turn in range(1, period + 1):
        early = [
            member
            for member, share in enumerate(shares)
            if slack * (share * turn - period * had[member]) >= period
        ]
        chosen = min(early, key=deadline)
        had[chosen] += 1
        turns.append(chosen)
    return turns
