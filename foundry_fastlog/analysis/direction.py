"""Whether more or less of a metric is better, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = ["MORE_IS_BETTER", "is_more_better"]

#: Words of names of metrics of which more is better; of all others less is.
MORE_IS_BETTER = frozenset(
    (
        *("acc", "accuracy", "ap", "auc", "auroc", "bleu", "correct", "dice", "exact", "f1", "fps"),
        *("goodput", "hits", "iou", "map", "mfu", "mrr", "ndcg", "pass", "precision", "psnr", "r2"),
        *("recall", "return", "returns", "reward", "rewards", "rouge", "score", "ssim", "success"),
        *("throughput", "top1", "top5", "tps", "win", "winrate"),
    )
)
_WORD = re.compile(r"[A-Za-z]+\d*")
_PER = re.compile(r"per_(s|sec|second)\b|/s(ec)?\b")


def is_more_better(name: str, maximise: Iterable[str] = ()) -> bool:
    """Say whether the best value of a metric is the largest one.

    It is where a word of the name is one of ``MORE_IS_BETTER``, or the name ends in ``per_s`` or
    the like; otherwise the best value is the smallest.

    Args:
        name: The metric's name; words end at anything but letters.
        maximise: Patterns of names of which it is so in any case.
    """
    if any(name == pattern or fnmatchcase(name, pattern) for pattern in maximise):
        return True
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & MORE_IS_BETTER) or _PER.search(name.lower()) is not None
