"""reconcile: the rules by which evidence becomes a fate, each for itself and all together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.protocol import HistoryEntry
from toolkit.reconcile import ABSENT_FOR_S, Evidence, Fate, judge

ENTRY = HistoryEntry("p", "success", ())
GONE = Evidence(acknowledged=True, absences=2, absent_for_s=ABSENT_FOR_S)

evidence = st.builds(
    Evidence,
    acknowledged=st.booleans(),
    history=st.none() | st.just(ENTRY),
    runs=st.booleans(),
    place=st.none() | st.integers(0, 3),
    absences=st.integers(0, 4),
    absent_for_s=st.floats(0, 5),
    post_open=st.booleans(),
    forgot=st.booleans(),
    not_sent=st.booleans(),
    cancel_asked=st.booleans(),
    deleted=st.booleans(),
)

relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault
absent = evidence.map(lambda found: replace(found, history=None, runs=False, place=None, not_sent=False))


@relaxed
@given(evidence)
def test_history_wins_over_everything(found):
    assert judge(replace(found, history=ENTRY)) is Fate.ENDED


@relaxed
@given(evidence)
def test_what_the_server_shows_wins_over_what_we_remember(found):
    assert judge(replace(found, history=None, runs=True)) is Fate.RUNNING
    assert judge(replace(found, history=None, runs=False, place=0)) is Fate.PENDING


@relaxed
@given(evidence)
def test_nothing_ends_while_the_server_has_it(found):
    if found.runs or found.place is not None:
        assert judge(found) in (Fate.ENDED, Fate.RUNNING, Fate.PENDING)


@relaxed
@given(evidence)
def test_what_never_left_us_is_sent_again_unless_cancelled(found):
    found = replace(found, history=None, runs=False, place=None, not_sent=True)
    assert judge(found) is (Fate.CANCELLED if found.cancel_asked else Fate.SEND_AGAIN)


@relaxed
@given(absent)
def test_nothing_is_decided_while_our_post_is_open(found):
    assert judge(replace(found, post_open=True)) is Fate.WAIT


@relaxed
@given(absent, st.integers(0, 1), st.floats(0, 100))
def test_one_absence_is_none(found, absences, seconds):
    fate = judge(replace(found, absences=absences, absent_for_s=seconds))
    assert fate is Fate.WAIT or (fate is Fate.CANCELLED and found.cancel_asked and found.deleted and absences)


@relaxed
@given(absent, st.floats(0, ABSENT_FOR_S, exclude_max=True))
def test_two_absences_too_close_together_are_none(found, seconds):
    assert judge(replace(found, cancel_asked=False, absent_for_s=seconds)) is Fate.WAIT


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
        assert found.cancel_asked


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({"forgot": True}, Fate.LOST),
        ({"forgot": False}, Fate.REMOVED),
        ({"acknowledged": False}, Fate.NEVER_ARRIVED),
        ({"acknowledged": False, "forgot": True}, Fate.NEVER_ARRIVED),
        ({"cancel_asked": True}, Fate.CANCELLED),
        ({"cancel_asked": True, "forgot": True}, Fate.CANCELLED),
        ({"absences": 1}, Fate.WAIT),
        ({"absent_for_s": 1.99}, Fate.WAIT),
    ],
)
def test_what_a_lasting_absence_means(changes, fate):
    assert judge(replace(GONE, **changes)) is fate


def test_a_delete_that_was_answered_makes_the_first_absence_count():
    found = Evidence(acknowledged=True, absences=1, cancel_asked=True, deleted=True)
    assert judge(found) is Fate.CANCELLED
    assert judge(replace(found, deleted=False)) is Fate.WAIT
    assert judge(replace(found, absences=0)) is Fate.WAIT
    assert judge(replace(found, post_open=True)) is Fate.WAIT


def test_every_fate_can_happen():
    seen = {
        judge(found)
        for found in (
            Evidence(True), replace(GONE, place=1), replace(GONE, runs=True), replace(GONE, history=ENTRY), Evidence(False, not_sent=True),
            replace(GONE, acknowledged=False), replace(GONE, forgot=True), GONE, replace(GONE, cancel_asked=True),
        )
    }  # fmt: skip
    assert seen == set(Fate)
