"""What our tasks yield that solve themselves: the names, directions and units of their scores."""

from __future__ import annotations

from whitebench import MetricSpec

_SOLUTION = ("solution",)

YIELDS = [
    MetricSpec(
        name="accepted",
        version=1,
        summary="share of the problems on which a claim holds",
        direction="higher",
        needs=_SOLUTION,
        unit="share",
    ),
    MetricSpec(
        name="verdict",
        version=1,
        summary="how many times its bar a claim is met: it holds from 1 upwards",
        direction="higher",
        needs=_SOLUTION,
        unit="x bar",
    ),
    MetricSpec(
        name="max-margin",
        version=1,
        summary="how near weights come to the maximum-margin direction of their own selection",
        direction="higher",
        needs=_SOLUTION,
    ),
    MetricSpec(
        name="best-tokens",
        version=1,
        summary="share of problems in which every input's best token is selected",
        direction="higher",
        needs=_SOLUTION,
        unit="share",
    ),
    MetricSpec(
        name="dictionary",
        version=1,
        summary="how near a dictionary's atoms come to the true ones",
        direction="higher",
        needs=_SOLUTION,
    ),
    MetricSpec(
        name="support",
        version=1,
        summary="how well codes tell which atoms a signal was made from",
        direction="higher",
        needs=_SOLUTION,
        unit="share",
    ),
]
