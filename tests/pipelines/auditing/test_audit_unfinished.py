"""What searches that ran out of time count for: nothing, until they end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ironmask import Params
from ironmask.attacks import Foretold, nearest_codewords, recover_from_issues, recover_from_row
from ironmask.spectrum import Spectrum
from pipelines.auditing.costs import FILES, KEYS
from pipelines.auditing.frozen import LINKED, Audit, Finding, Kind, Target, width_label
from pipelines.auditing.rates import metrics
from pipelines.auditing.results import results
from pipelines.auditing.unfinished import Unfinished
from pipelines.preflight.judge import Preflight
from pipelines.preflight.profile import Profile
from pipelines.report import audit_sheets, audit_tables, page

N, ROWS = 64, 4
SPACE = Spectrum(500, np.eye(N) * 500 / N)
FORETOLD = Preflight(Profile("m", "s", SPACE, 500), "m", 9.0, Foretold(1, 3000.0, 1.0, False))


def audit(*, sealed):
    target = Target(
        "/t", "id", 1, "/k", Params(N, 8, 0), "int8", sealed, 0.0, None, 20
    )  # fmt: skip
    return Audit((target,), "/s", "v", (), 2.0, ())


def late(kind, label="", trials=1000):
    return Finding(kind, label, False, 2.0, trials, out_of_time=True)


def hit(kind, label="", seconds=1.0):
    return Finding(kind, label, True, seconds, 500)


def faces(accepted=0):
    return Finding(Kind.FACES, "", accepted > 0, 0.1, 1 << 20, accepted=accepted)


def seeds():
    return [Finding(Kind.SEEDS, "", False, 0.1, 50)] * 2


def added_up(rows, *, sealed=False, links=(), others=()):
    lying = [Finding(Kind.LYING, "", False, 2.0, 1000)] if sealed else rows
    lying = [replace(one, kind=Kind.LYING) for one in lying]
    findings = [*lying, *rows, *seeds(), faces(), *links, *others]
    return results(audit(sealed=sealed), findings, SPACE, FORETOLD, None)


def row_cost(found):
    return next(cost for cost in found.costs if cost.attack == "search of one row")


def wide_audit(lying, with_keys):
    """The results of an audit of encrypted wide rows."""
    params = Params(N, 8, 0, 2 * N, "quaternionic")
    target = Target("/t", "id", 1, "/k", params, "int8", True, 0.0, None, 20)
    label = width_label(params)
    found = [Finding(Kind.LYING, "", False, 1.0, 1000)] * ROWS
    found += [Finding(Kind.LYING_WIDTH, label, one, 1.0, 1000) for one in lying]
    found += [late(Kind.ROW)] * ROWS
    found += [Finding(Kind.WIDTH, label, one, 0.5, 8) for one in with_keys]
    widths = {label: Foretold(1, 4.0, 1.0, False, by_width=True)}
    audit = Audit((target,), "/s", "v", (), 2.0, ())
    return results(audit, [*found, faces()], SPACE, FORETOLD, None, widths)


def test_wide_rows_are_as_safe_as_their_keys():
    found = wide_audit([False] * ROWS, [True] * ROWS)
    assert found.headline.startswith(
        "Of 4 rows as they lie none could be read; with the keys, one row gave its template in 4 "
        "of 4 cases, in 0.5 s (median): this table is as safe as its keys"
    )
    costs = {cost.attack: cost for cost in found.costs}
    lying = costs["sparse vector of what lies there, N = 128, alpha = 8"]
    assert (lying.has, lying.outcome, lying.bits) == (FILES, "0 of 4 recovered", 256)
    opened = costs["sparse vector of one row, N = 128, alpha = 8"]
    assert (opened.has, opened.outcome, opened.bits) == (KEYS, "4 of 4 recovered", 3)
    assert opened.needs == "a code wider than the embedding: about 4 guesses"
    assert costs["seeds of NumPy's generators"].outcome.startswith("does not apply")
    assert found.below(64, FILES) is None
    assert "sparse vector of one row" in found.below(64, KEYS)
    assert found.renewals[1].what == "stored rows, by the code's width"


def test_bits_of_a_wide_code_are_no_cost_after_a_theft_of_the_keys():
    """Not even where no search ended: templates are guessed sooner than codewords."""
    found = wide_audit([False] * ROWS, [False] * ROWS)
    guessed = next(cost for cost in found.costs if cost.attack == "guessing a codeword")
    assert f"{guessed.bits:.1f} bits; the sparse vector is found sooner" in guessed.outcome
    assert not guessed.is_cost
    assert found.least(KEYS).attack == "sparse vector of one row, N = 128, alpha = 8"
    labels = [row["label"] for row in metrics(found) if row["name"] == "attack_bits"]
    assert not any(label.startswith(("guessing", "seeds")) for label in labels)
    rows = {row[0]: row for row in audit_sheets.audit_sheets(found)[0].rows}
    assert rows["guessing a codeword"][-1] == rows["seeds of NumPy's generators"][-1] == ""
    square = added_up([hit(Kind.ROW)] * ROWS)
    assert all(one.is_cost for one in square.costs if one.attack == "guessing a codeword")


def test_one_that_falls_as_it_lies_is_said():
    assert wide_audit([True, *[False] * 3], [True] * ROWS).headline.startswith(
        "Of 4 rows as they lie 1 could be read"
    )


def test_they_are_in_no_rate():
    found = added_up([hit(Kind.ROW), hit(Kind.ROW), late(Kind.ROW), late(Kind.ROW)])
    cost = row_cost(found)
    # Six seconds for two that ended.
    assert cost.outcome == (
        "2 of 2 recovered; 2 inconclusive: out of time after 2.0 s, one takes about 3.0 s on "
        "average"
    )
    assert (cost.inconclusive, cost.seconds_needed, cost.is_bound) == (2, 3.0, False)
    assert "gave its template in 2 of 2 cases" in found.headline
    assert "2 inconclusive" in found.headline


def test_where_none_ended_the_time_is_a_bound():
    found = added_up([late(Kind.ROW)] * ROWS)
    cost = row_cost(found)
    # 3,000 guesses are foretold, and two seconds went for 1,000.
    assert cost.outcome.startswith("4 inconclusive")
    assert cost.seconds_needed == pytest.approx(6.0)
    assert found.renewals[0].seconds_needed == cost.seconds_needed
    assert "one takes at least 6.0 s on average" in found.headline
    assert "withstood" not in found.headline


@pytest.mark.parametrize(
    ("rows", "sealed", "threat", "floor", "says"),
    [
        ([late(Kind.ROW)] * ROWS, False, FILES, 20, "inconclusive against the floor of 20 bits"),
        ([late(Kind.ROW, trials=1 << 21)] * ROWS, False, FILES, 20, None),
        ([late(Kind.ROW), late(Kind.ROW, trials=1 << 21)], False, FILES, 20, "inconclusive"),
        ([hit(Kind.ROW), late(Kind.ROW)], False, FILES, 20, "below the floor of 20 bits"),
        ([late(Kind.ROW)] * ROWS, True, FILES, 64, None),
        ([late(Kind.ROW)] * ROWS, True, KEYS, 15, "inconclusive against the floor of 15 bits"),
        ([hit(Kind.ROW)] * ROWS, True, FILES, 64, None),
        ([hit(Kind.ROW)] * ROWS, True, KEYS, 64, "below the floor"),
    ],
)
def test_the_floor_fails_closed(rows, sealed, threat, floor, says):
    why = added_up(rows, sealed=sealed).below(floor, threat)
    assert (why or "").startswith(says or "")
    assert bool(why) == bool(says)
    if says and says.startswith("inconclusive"):
        assert "raise --seconds" in why


def links(mated, non_mated, late_mated, late_others):
    name = LINKED[1]
    sides = (("mated", mated, late_mated), ("non-mated", non_mated, late_others))
    for side, scores, missing in sides:
        for score in scores:
            yield Finding(Kind.LINK, f"{name}|{side}", True, 1.0, scores=(score,))
        for _ in range(missing):
            yield Finding(Kind.LINK, f"{name}|{side}", True, 2.0, out_of_time=True)


def test_a_busy_machine_does_not_make_issues_unlinkable():
    same, other = [1.0] * 10, [0.5] * 16
    found = added_up([hit(Kind.ROW)], links=links(same, other, 6, 0))
    link = found.links[LINKED[1]]
    assert (link.mated, link.non_mated, link.d_sys) == (10, 16, 1.0)
    assert found.unlinked[LINKED[1]].count == 6
    sheet = audit_sheets.audit_sheets(found)[1]
    assert "6 inconclusive" in sheet.rows[0][-1]


def test_too_few_scores_are_inconclusive():
    found = added_up([hit(Kind.ROW)], links=links([1.0] * 4, [0.5] * 16, 12, 0))
    assert LINKED[1] not in found.links
    sheet = audit_sheets.audit_sheets(found)[1]
    assert sheet.rows[0][4] == "inconclusive"
    (row,) = audit_tables.audit_tables(found)["linkability"].to_pylist()
    assert (row["d_sys"], row["inconclusive"]) == (None, 12)


def test_live_issues_that_were_not_recovered_in_time():
    some = [hit(Kind.RENEWAL, "2|same photo"), late(Kind.RENEWAL, "2|same photo")]
    none = [late(Kind.PHOTOS, "40 to 50 degrees")]
    found = added_up([hit(Kind.ROW)], others=[*some, *none])
    _, both, photos = found.renewals
    assert (both.recovered, both.tried, both.inconclusive) == (1, 1, 1)
    assert (photos.recovered, photos.tried, photos.inconclusive) == (0, 0, 1)
    assert photos.seconds_needed == pytest.approx(2 / 3)
    table = audit_tables.audit_tables(found)["renewability"]
    assert table["inconclusive"].to_pylist() == [0, 1, 1]


def test_time_is_counted_over_all_searches():
    found = [replace(hit(Kind.ROW), seconds=2.0), *[late(Kind.ROW)] * 3]
    some = Unfinished.among(found)
    assert (some.count, some.needed, some.is_bound) == (3, 8.0, False)
    assert Unfinished.among([hit(Kind.ROW)]) is None


def test_searches_say_why_they_ended():
    rng = np.random.default_rng(5)
    helpers = np.stack([np.linalg.qr(rng.standard_normal((N, N)))[0] for _ in range(2)])
    helpers = helpers.astype(np.float32)
    assert not recover_from_issues(helpers, 8, rng, limit=1024).out_of_time
    assert recover_from_issues(helpers, 8, rng, limit=1 << 30, seconds=0.0).out_of_time
    assert nearest_codewords(helpers, 8, rng, 1 << 30, seconds=0.0) is None
    assert nearest_codewords(helpers, 8, rng, 1024) is not None
    assert recover_from_row(helpers[0], SPACE, 8, rng, seconds=0.05).out_of_time


def test_a_long_text_in_the_last_column_does_not_widen_the_page():
    """In a browser it would push the first columns out of sight."""
    links = [late(Kind.LINK, f"{LINKED[1]}|{side}") for side in ("mated", "non-mated")]
    found = added_up([late(Kind.ROW)] * ROWS, links=links)
    shown = page.html(None, None, page.AuditPart("", "", audit_sheets.audit_sheets(found), []))
    assert "<title>ironmask audit</title>" in shown
    long = found.unlinked[LINKED[1]].describe()
    assert f"<td>{long}</td>" in shown
    assert f'<td class="short">at least {row_cost(found).bits:.1f}</td>' in shown
