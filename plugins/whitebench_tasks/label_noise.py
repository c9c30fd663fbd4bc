"""Label noise: a share of the training labels is drawn anew, evenly over all classes.

Sample i's label is drawn anew where u_i < share, for a uniform number u_i that its place i and the stream's
name decide. So what is changed at 0.1 is changed in the same way at 0.3, and in a longer training set too. The new
label is the old one with chance 1/C: of n samples share * (1 - 1/C) n change on average, and how many did is
stated beside the nominal share. Validation and test labels stay as they are.

N samples, C classes.
"""

from __future__ import annotations

import numpy as np
import torch

from whitebench import Samples, WhitebenchError
from whitebench_tasks.chance import Stream


def check_label_noise(task: str, share: float) -> None:
    """Refuse a share that is none.

    Raises:
        WhitebenchError: naming the option and what to give instead.
    """
    if not 0 <= share <= 1:
        raise WhitebenchError(
            f"{task}[label_noise={share}]: a share of the training labels lies between 0 and 1;"
            f" choose such a one, e.g. label_noise=0.3"
        )


def with_label_noise(samples: Samples, share: float, *, classes: int, stream: str) -> Samples:
    """Return samples of which about this share has a label drawn anew, and how many of all labels changed.

    Args:
        samples: a training split; left as it is.
        share: of the samples, in [0, 1]; at 0 the samples themselves are returned.
        classes: C, from which new labels are drawn evenly.
        stream: the name of the random numbers.
    """
    if share == 0:
        return samples
    drawn_N2 = Stream(stream).uniform(len(samples), 2)
    anew_N = torch.from_numpy((drawn_N2[:, 1] * classes).astype(np.int64))
    labels_N = torch.where(torch.from_numpy(drawn_N2[:, 0] < share), anew_N, samples.labels)
    flipped = int((labels_N != samples.labels).sum()) / len(samples)
    facts = {"label noise, nominal": share, "label noise, flipped": flipped}
    return Samples(inputs=samples.inputs, labels=labels_N, facts={**samples.facts, **facts})
