"""Opening a file never runs code: the calls that could are banned from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import carousel

SOURCE = Path(carousel.__file__).parent

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "torch.hub.load",
    "torch.jit.load",
    "tempfile.mktemp",
}
METHODS = {"extractall", "unpack_archive"}


def banned(source: str) -> list[str]:
    """What `source` does that could run code out of a file, or write outside the folder it was given."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt | ast.expr)]
    return [f"line {node.lineno}: {what}" for node in nodes for what in complaints(node)]


def complaints(node: ast.stmt | ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom):
        if (node.module or "").partition(".")[0] in MODULES:
            yield str(node.module)
    elif isinstance(node, ast.Call):
        yield from call_complaints(node)


def call_complaints(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if name in BUILTINS | CALLS or name.rpartition(".")[2] in METHODS:
        yield name
    if name == "torch.load" and keywords.get("weights_only") != "True":
        yield "torch.load without weights_only=True"
    if keywords.get("allow_pickle", "False") != "False":
        yield "allow_pickle"
    if keywords.get("shell", "False") != "False":
        yield "shell=True"
    if name.rpartition(".")[2] == "import_module" and not (call.args and isinstance(call.args[0], ast.Constant)):
        yield "import_module with a computed name"


def test_nothing_banned_is_in_the_source() -> None:
    found = {path.relative_to(SOURCE): banned(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    # The package's own table of public names is the one place that imports by a name it computes.
    allowed = [what for what in found.pop(Path("__init__.py")) if "import_module" not in what]
    assert allowed == []
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from joblib import load",
        "eval('1')",
        "exec(text)",
        "__import__(name)",
        "yaml.load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "importlib.import_module(name)",
        "def f():\n    if x:\n        torch.hub.load(name)",
    ],
)
def test_a_planted_violation_is_caught(planted: str) -> None:
    assert len(banned(planted)) == 1


@pytest.mark.parametrize(
    "fine",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "re.compile('a')",
        "torch.compile(model)",
        "subprocess.run([name], shell=False)",
        "import_module('llvmlite')",
    ],
)
def test_their_harmless_relatives_pass(fine: str) -> None:
    assert banned(fine) == []
