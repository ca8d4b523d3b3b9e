"""The package as people install it: built through the sdist, in an empty venv."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pgdrip
from databases import CHECKOUT


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, which `build` makes from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, CHECKOUT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_sql_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        shipped = {name for name in content.namelist() if name.endswith(".sql")}
    files = [*(CHECKOUT / "db").rglob("*.sql"), *(CHECKOUT / "examples").glob("*.sql")]
    assert shipped == {f"pgdrip/{path.relative_to(CHECKOUT)}" for path in files}


def test_the_wheel_runs_from_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", "empty", cwd=tmp_path)
    bin = tmp_path / "empty" / "bin"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", bin / "python")
    run(*pip, "install", "--no-compile", wheel, cwd=tmp_path)
    assert pgdrip.__version__ in run(bin / "pgdrip", "--version", cwd=tmp_path)
    tell = "from pgdrip.migrate import SQL_ROOT; print(SQL_ROOT / 'functions')"
    functions = run(bin / "python", "-c", tell, cwd=tmp_path).strip()
    assert Path(functions).is_relative_to(tmp_path)
    assert Path(functions).is_dir()
