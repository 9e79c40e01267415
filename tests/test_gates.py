"""--fail-if."""

import pytest

from ganvas.errors import ConfigError
from ganvas.gates import Gate, shut_gates

FIGURES = {"kid": 0.1, "coverage": 0.5, "copies": 0.0}


@pytest.mark.parametrize("text", ["kid>0.05", "KID >= .1", "coverage<0.6", " coverage <= 5e-1 ", "copies>-1"])
def test_a_gate_that_holds_is_shut_and_says_the_value(text):
    gate = Gate.parse(text)
    [line] = shut_gates([gate], FIGURES.get, FIGURES)
    assert gate.metric in line and f"{FIGURES[gate.metric]:.4g}" in line


@pytest.mark.parametrize("text", ["kid>0.1", "kid<0.1", "coverage>.5", "copies>0"])
def test_a_gate_that_does_not_hold_says_nothing(text):
    assert shut_gates([Gate.parse(text)], FIGURES.get, FIGURES) == []


@pytest.mark.parametrize("text", ["", "kid", "kid=0.1", "kid>", ">0.1", "kid>a", "kid>0.1>0.2", "kid>0.1 or fid>2"])
def test_what_is_no_condition_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="--fail-if"):
        Gate.parse(text)


def test_a_figure_that_was_not_measured_does_not_let_the_gate_pass():
    with pytest.raises(ConfigError, match=r"no figure 'fid'.*kid, coverage, copies"):
        shut_gates([Gate.parse("fid>5")], FIGURES.get, FIGURES)
