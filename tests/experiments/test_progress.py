"""The progress bar, as a terminal would show it."""

import io
import sys

import pytest


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Makes standard error a terminal, 100 columns wide; pytest would undo that if it were done before the test."""

    def open_():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "xterm")
        return terminal

    return open_


def test_bar_on_a_terminal(train, evaluate, open_terminal):
    """It tells rounds, clients, accuracy and traffic, ends full, and needs no asking on a terminal."""
    terminal = open_terminal()
    history = train(progress=None, evaluate=evaluate, name="fp32")
    shown = terminal.getvalue()
    assert "compiling" in shown
    last = shown[shown.rindex("fp32") :]
    assert "3/3 rounds" in last
    assert f"6 clients, test accuracy {history.final.test['accuracy']:.1%}" in last
    assert "kB" in last


def test_bar_of_an_interrupted_run(train, keyboard_interrupt_in_round, open_terminal):
    """After an interrupt the bar stays where it was, and the cursor is shown again."""
    terminal = open_terminal()
    with pytest.raises(KeyboardInterrupt):
        train(progress=None, process=keyboard_interrupt_in_round(2), rounds=5, name="fp32")
    shown = terminal.getvalue()
    assert "2/5 rounds" in shown[shown.rindex("fp32") :]
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


@pytest.mark.parametrize("progress", [None, False])
def test_no_bar_elsewhere(train, progress, capsys):
    """Nothing is written where there is no terminal, or no bar is wanted."""
    train(progress=progress)
    assert capsys.readouterr() == ("", "")


def test_no_bar_on_a_terminal_if_not_wanted(train, open_terminal):
    """progress=False is silence everywhere."""
    terminal = open_terminal()
    train(progress=False)
    assert terminal.getvalue() == ""
