"""What is said of measured pairs: medians, the interval of their ratio, and whether a goal is met."""

import random
import statistics

RESAMPLES = 10_000
PAIRS = "the median of the pairs' ratios"
MEDIANS = "the ratio of the medians"


def interval(count, statistic):
    """The 95 % interval of a statistic of pairs, by drawing them again (percentile bootstrap)."""
    draw = random.Random(7)
    resamples = RESAMPLES if count > 1 else 1
    drawn = sorted(statistic(draw.choices(range(count), k=count)) for _ in range(resamples))
    return drawn[int(0.025 * resamples)], drawn[max(0, int(0.975 * resamples) - 1)]


def compare(ours, theirs, ratio=PAIRS):
    """Ours over theirs. Differences may be near nothing or below it, where a pair's own ratio says
    little: those are compared by their medians."""
    if ratio is PAIRS:
        ratios = [us / them if them else float("inf") for us, them in zip(ours, theirs)]
        statistic = lambda chosen: statistics.median(ratios[pair] for pair in chosen)
    else:
        def statistic(chosen):
            them = statistics.median(theirs[pair] for pair in chosen)
            return statistics.median(ours[pair] for pair in chosen) / them if them > 0 else float("inf")
    low, high = interval(len(ours), statistic)
    return {"ours": statistics.median(ours), "theirs": statistics.median(theirs),
            "ratio": statistic(range(len(ours))), "low": low, "high": high, "pairs": len(ours)}


def verdict(low, high, goal):
    """A goal is met, or missed, where the whole interval says so."""
    if goal is None:
        return None
    return "met" if high <= goal else "missed" if low > goal else "unsettled"


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
