"""Attacks of a thief of protected templates, as an evaluator measures them.

Each attack takes arrays as they lie in a table after helpers are decrypted. It tells whether it
succeeded, after how many trials and how long. It never needs codewords, keys or embeddings; who has
them checks a result by `Recovered.cosine`.

| attack | needs | cost |
| --- | --- | --- |
| guessing codewords | one row and its digest key | `Params.bits` |
| `best_match` | one row and a collection of faces | 2 N n operations a face |
| `recover_from_subspace` | one row and the model's directions | `guesses_needed`, 60 N^2 each |
| `recover_from_width` | one row whose code is wide | `guesses_by_width`, 120 N^2 each |
| `recover_from_issues` | two issues of one person | starts of 120 N n operations |
| `recover_by_regression` | the same; the published attack | `regression_bits`, n^3 each |
| `recover_by_tradeoff` | the same, of one capture | `tradeoff_operations` and as much memory |
| `scan_seeds` | one square row and how its rotation was seeded | a rotation for each seed |

What an embedding gives away once a thief has it is measured by `ironmask.attacks.inversion`.
"""

from ironmask.attacks.dictionary import Match, best_match, codeword_cosines, dictionary_bits
from ironmask.attacks.forecast import Foretold, foretell, foretell_by_width
from ironmask.attacks.fresh import fresh_issues
from ironmask.attacks.issues import recover_from_issues
from ironmask.attacks.linkage import largest_entry, nearest_codewords
from ironmask.attacks.regression import recover_by_regression, regression_bits
from ironmask.attacks.result import Budget, Recovered
from ironmask.attacks.rotations import recover_from_rotation, scan_seeds
from ironmask.attacks.row import recover_from_row
from ironmask.attacks.subspace import guesses_needed, recover_from_subspace
from ironmask.attacks.tradeoff import TradeOff, recover_by_tradeoff, tradeoff_operations
from ironmask.attacks.widened import guesses_by_width, recover_from_width

__all__ = [
    "Budget",
    "Foretold",
    "Match",
    "Recovered",
    "TradeOff",
    "best_match",
    "codeword_cosines",
    "dictionary_bits",
    "foretell",
    "foretell_by_width",
    "fresh_issues",
    "guesses_by_width",
    "guesses_needed",
    "largest_entry",
    "nearest_codewords",
    "recover_by_regression",
    "recover_by_tradeoff",
    "recover_from_issues",
    "recover_from_rotation",
    "recover_from_row",
    "recover_from_subspace",
    "recover_from_width",
    "regression_bits",
    "scan_seeds",
    "tradeoff_operations",
]
