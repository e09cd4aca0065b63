"""reconcile: the rules by which evidence becomes a fate, each for itself and all together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.protocol import HistoryEntry, Whereabouts
from toolkit.reconcile import ABSENT_FOR_S, Evidence, Fate, judge

ENTRY = HistoryEntry("p", "success", ())
RUNS, WAITS, ENDED, NOWHERE = Whereabouts(runs=True), Whereabouts(waits=True), Whereabouts(history=ENTRY), Whereabouts()
GONE = Evidence(acknowledged=True, absences=2, absent_for_s=ABSENT_FOR_S)

evidence = st.builds(
    Evidence,
    acknowledged=st.booleans(),
    where=st.sampled_from([RUNS, WAITS, ENDED, NOWHERE]),
    absences=st.integers(0, 4),
    absent_for_s=st.floats(0, 5),
    forgot=st.booleans(),
    not_sent=st.booleans(),
    stopping=st.booleans(),
    deleted=st.booleans(),
)

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault
absent = evidence.map(lambda found: replace(found, where=NOWHERE, not_sent=False))


@relaxed
@given(evidence)
def test_history_wins_over_everything(found):
    assert judge(replace(found, where=ENDED)) is Fate.ENDED


@relaxed
@given(evidence)
def test_what_the_server_shows_wins_over_what_we_remember(found):
    assert judge(replace(found, where=RUNS)) is Fate.RUNNING
    assert judge(replace(found, where=WAITS)) is Fate.PENDING


@relaxed
@given(evidence)
def test_nothing_ends_while_the_server_has_it(found):
    if not found.where.is_absent:
        assert judge(found) in (Fate.ENDED, Fate.RUNNING, Fate.PENDING)


@relaxed
@given(evidence)
def test_what_never_left_us_is_sent_again_unless_cancelled(found):
    found = replace(found, where=NOWHERE, not_sent=True)
    assert judge(found) is (Fate.CANCELLED if found.stopping else Fate.SEND_AGAIN)


@relaxed
@given(absent, st.integers(0, 1), st.floats(0, 100))
def test_one_absence_is_none(found, absences, seconds):
    fate = judge(replace(found, absences=absences, absent_for_s=seconds))
    assert fate is Fate.WAIT or (fate is Fate.CANCELLED and found.stopping and found.deleted and absences)


@relaxed
@given(absent, st.floats(0, ABSENT_FOR_S, exclude_max=True))
def test_two_absences_too_close_together_are_none(found, seconds):
    assert judge(replace(found, stopping=False, absent_for_s=seconds)) is Fate.WAIT


@relaxed
@given(absent)
def test_only_what_was_acknowledged_can_be_lost_or_removed(found):
    fate = judge(found)
    if fate in (Fate.LOST, Fate.REMOVED):
        assert found.acknowledged
    if fate is Fate.NEVER_ARRIVED:
        assert not found.acknowledged


@relaxed
@given(evidence)
def test_a_cancelled_job_is_cancelled_only_if_somebody_asked(found):
    if judge(found) is Fate.CANCELLED:
        assert found.stopping


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"forgot": True}, Fate.LOST),
        ({"forgot": False}, Fate.REMOVED),
        ({"acknowledged": False}, Fate.NEVER_ARRIVED),
        ({"acknowledged": False, "forgot": True}, Fate.NEVER_ARRIVED),
        ({"stopping": True}, Fate.CANCELLED),
        ({"stopping": True, "forgot": True}, Fate.CANCELLED),
        ({"absences": 1}, Fate.WAIT),
        ({"absent_for_s": 1.99}, Fate.WAIT),
    ],
)
def test_what_a_lasting_absence_means(changes, fate):
    assert judge(replace(GONE, **changes)) is fate


def test_a_delete_that_was_answered_makes_the_first_absence_count():
    found = Evidence(acknowledged=True, absences=1, stopping=True, deleted=True)
    assert judge(found) is Fate.CANCELLED
    assert judge(replace(found, deleted=False)) is Fate.WAIT
    assert judge(replace(found, absences=0)) is Fate.WAIT


def test_every_fate_can_happen():
    seen = {
        judge(found)
        for found in (
            Evidence(True), replace(GONE, where=WAITS), replace(GONE, where=RUNS), replace(GONE, where=ENDED), Evidence(False, not_sent=True),
            replace(GONE, acknowledged=False), replace(GONE, forgot=True), GONE, replace(GONE, stopping=True),
        )
    }  # fmt: skip
    assert seen == set(Fate)
