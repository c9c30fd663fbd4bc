"""Token selection: does attention trained by gradient descent find the maximum margin? A task that solves itself.

"Transformers as Support Vector Machines" (Tarzanagh, Li, Thrampoulidis and Oymak, arXiv 2308.16898) claims that the W
of one attention layer, trained by normalised gradient descent, grows in the direction of the W that separates the
tokens it selects from all others with the largest margin: in the Frobenius norm where W is trained, in the nuclear norm
where K and Q are. `claims` says what is tried and when it counts as found.
"""

from whitebench_tasks.token_selection.task import TOKEN_SELECTION

__all__ = ["TOKEN_SELECTION"]
