"""The frame of the command line: it starts fast, and every way to fail is one line and an exit code."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from carousel import __version__, cli
from carousel.errors import CarouselError, ConfigError, DataError, Interrupted, ModelFileError, PhotoError, UserError

HEAVY = {"torch", "numpy", "pydantic", "rich", "jinja2", "PIL", "carousel.captioning"}


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "carousel", *args], capture_output=True, text=True, check=False)


def seconds(*args: str) -> float:
    """The best of five starts of Python with `args`: the machine's noise only ever adds."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *args], capture_output=True, check=True)
        return time.perf_counter() - start

    return min(once() for _ in range(5))


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Give the command line a verb `act` that raises."""

    def install(error: BaseException) -> None:
        app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
        app.callback()(cli.carousel)

        @app.command()
        def act(count: int = 0) -> None:
            """Raise."""
            raise error

        monkeypatch.setattr(cli, "app", app)

    return install


def test_help_starts_fast() -> None:
    """0.3 s on an idle machine, or as a multiple of Python's own start (about 0.02 s) on a busy one."""
    bare = seconds("-c", "pass")
    assert seconds("-m", "carousel", "--help") < max(0.3, 15 * bare)


def test_help_imports_nothing_heavy() -> None:
    probe = "import sys; from carousel.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == [verb.__name__ for verb in cli.VERBS]


def test_nothing_asked_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert capsys.readouterr().out.startswith("Usage: carousel")


def test_one_verb_per_file() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {verb.__name__ for verb in cli.VERBS}


@pytest.mark.parametrize("kind", [CarouselError, UserError, ConfigError, DataError, PhotoError, ModelFileError])
def test_our_errors_are_one_line(
    kind: type[CarouselError], verb: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    line = "dog.jpg: not a picture (got text); JPEG, PNG and WebP are; give another file"
    verb(kind(line))
    assert cli.main(["act"]) == kind.exit_code
    assert capsys.readouterr() == ("", line + "\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (Interrupted("stopped at epoch 3"), 130), (typer.Abort(), 130), (typer.Exit(2), 2)],
)
def test_interruptions_have_their_code(
    error: BaseException, code: int, verb: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(error)
    assert cli.main(["act"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(verb: Callable[[BaseException], None]) -> None:
    verb(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["act"])


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["doctro"], "carousel: No such command 'doctro'. Did you mean 'doctor'?; see carousel --help"),
        (["doctor", "--yaml"], "carousel doctor: No such option: --yaml; see carousel doctor --help"),
        (["doctor", "now"], "carousel doctor: Got unexpected extra argument(s) (now); see carousel doctor --help"),
    ],
)
def test_usage_errors_are_one_line(args: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(args) == 2
    assert capsys.readouterr() == ("", line + "\n")


def test_a_reader_that_goes_away_is_no_news() -> None:
    help_ = subprocess.Popen(
        [sys.executable, "-m", "carousel", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert help_.stdout is not None
    assert help_.stderr is not None
    help_.stdout.close()
    with help_.stderr:
        assert help_.stderr.read() == ""
    assert help_.wait() == 1


def test_the_process_ends_with_the_exit_code() -> None:
    assert (run("--version").returncode, run("--version").stdout) == (0, f"{__version__}\n")
    assert run("nothing").returncode == 2
