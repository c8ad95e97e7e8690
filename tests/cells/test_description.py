"""What is read from the docstrings of cells, each of which says what it is, where it is from and what it computes."""

import inspect

import pytest

from carousel.cells import CELLS, Cell, Clockwork, GatedAntisymmetric, PeepholeLSTM
from carousel.cells.description import describe


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_its_paper_and_its_equations(name: str) -> None:
    found = describe(CELLS[name])
    assert found.sentence.endswith(".")
    assert 1985 <= found.year <= 2026
    assert found.author.isalpha() or "-" in found.author
    assert found.paper.startswith(f"{found.authors} {found.year}")
    assert found.author not in found.equations
    assert " = " in found.equations.splitlines()[0]
    assert [option.name for option in found.options] == [
        name for name in inspect.signature(CELLS[name]).parameters if name not in ("input_size", "hidden_size")
    ]
    assert all(option.text or option.name == "bias" for option in found.options)


def test_of_several_papers_the_first_counts() -> None:
    found = describe(PeepholeLSTM)
    assert (found.authors, found.author, found.year) == ("Gers and Schmidhuber", "Gers", 2000)
    assert found.paper.endswith("arXiv:1503.04069v2, section II.")
    assert found.notes == "One cell per memory block. U, g and h are Greff et al.'s R, z and y."


def test_options_have_their_defaults_and_texts() -> None:
    periods, bias = describe(Clockwork).options
    assert (periods.default, bias.default) == ((1, 2, 4, 8), True)
    assert periods.text.startswith("T_1, T_2, ..., growing. The units are shared")
    step_size, diffusion, _ = describe(GatedAntisymmetric).options
    assert step_size.text == diffusion.text == "ε and γ, as in `Antisymmetric`."


def test_a_cell_without_a_docstring_of_its_own() -> None:
    class Mine(Cell):
        """A cell of mine, made up in 2024, and of no paper."""

    found = describe(Mine)
    assert (found.sentence, found.paper, found.year) == ("A cell of mine, made up in 2024, and of no paper.", "", 0)
