"""What a thief of protected templates can do, as an evaluator measures it.

Each attack takes arrays as they lie in a table once helpers are decrypted, and says whether it
succeeded, after how many trials and how long. Codewords, keys and embeddings are never needed: who
has them checks a result by `Recovered.cosine`.
"""

from ironmask.attacks.issues import recover_from_issues
from ironmask.attacks.linkage import largest_entry, nearest_codewords
from ironmask.attacks.result import Recovered
from ironmask.attacks.subspace import guesses_needed, recover_from_subspace

__all__ = [
    "Recovered",
    "guesses_needed",
    "largest_entry",
    "nearest_codewords",
    "recover_from_issues",
    "recover_from_subspace",
]
