"""The kinetic map: directions in which the state of a market persists, weighted by their persistence.

Most of the variance between adjacent slices is chance (which trade fell into which bar), and so are most of the principal components.
What persists from one slice to the next is the state that a search is about. Telling the two apart takes no labels: a persistent
direction is correlated with itself one slice later.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DIRECTIONS = 64  # leading components; among more, chance looks persistent
_PAIRS_PER_DIRECTION = 10  # pairs of slices needed to estimate one direction
_FLOOR = 0.02  # weight of the other directions: among slices in similar states, those with similar details are the nearest


def kinetic_map(states: Tensor, follows: Tensor) -> Tensor:
    """A linear map of states under which distances measure how differently two states evolve.

    The directions are those of time-lagged independent component analysis (Molgedey and Schuster 1994), each scaled by its
    autocorrelation (Noé and Clementi 2015).

    Args:
        states: [n, d], of unit variance and uncorrelated, the most important components first; ascending in time.
        follows: bool [n], whether a state belongs to the slice right after the previous one.

    Returns:
        float32 [d, d], to be multiplied from the right; the identity if too few states follow each other.
    """
    size = states.shape[1]
    now = follows.nonzero().flatten()
    leading = min(_DIRECTIONS, size, len(now) // _PAIRS_PER_DIRECTION)
    if leading == 0:
        return torch.eye(size, device=states.device)
    before, after = states[now - 1, :leading].double(), states[now, :leading].double()
    covariance = (before.T @ before + after.T @ after) / (2 * len(now))
    lagged = before.T @ after / len(now)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance + 1e-6 * torch.eye(leading, device=states.device, dtype=torch.float64)))
    autocorrelation, directions = torch.linalg.eigh(whitening @ (lagged + lagged.T) @ whitening.T / 2)
    directions = (whitening.T @ directions).flip(1) * autocorrelation.flip(0).clamp(min=_FLOOR)
    # The sign of a direction is arbitrary; its largest entry is made positive.
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    result = _FLOOR * torch.eye(size, device=states.device)
    result[:leading, :leading] = directions.float()
    return result
