"""A part of `make faults`, done each time; the processes of it take too long."""

import signal

import pytest

from benchmarks import faults


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


def survived(*outcomes):
    assert [each.fault for each in outcomes if each.lost or not each.tries] == []


@pytest.mark.filterwarnings("ignore:.*damaged:UserWarning")
def test_nothing_is_lost_to_damaged_files(work):
    survived(*faults.every_file(work, most=8), *faults.run_files(work), faults.strange(work))


@pytest.mark.slow
def test_nothing_is_lost_to_signals(work):
    survived(faults.stopped(work, 2, signal.SIGKILL, saving=True, seed=1))
    survived(faults.stopped(work, 2, signal.SIGTERM, saving=False, seed=2))


def test_the_best_and_the_last_stay(work):
    survived(faults.retention(work))


def test_files_that_are_not_there_in_time_are_named(work):
    survived(faults.reading(work))
