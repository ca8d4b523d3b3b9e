"""Secrets are found by name, and nothing tells what they are."""

import os
from pathlib import Path

import pytest

from pgdrip.errors import ConfigurationError
from pgdrip.secrets import LIMIT, mask, resolve


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("pa55 wörd\n")
    return path


def test_a_name_is_that_of_an_environment_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SECRET", "pa55")
    assert resolve("MY_SECRET") == "pa55"


def test_a_name_with_a_slash_is_that_of_a_file(file: Path) -> None:
    assert resolve(str(file)) == "pa55 wörd"


def test_a_file_is_read_anew_each_time(file: Path) -> None:
    resolve(str(file))
    file.write_text("rotated")
    assert resolve(str(file)) == "rotated"


def test_the_group_may_read_the_file(file: Path) -> None:
    file.chmod(0o640)
    assert resolve(str(file)) == "pa55 wörd"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_open_to_everybody_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="open to everybody") as refusal:
        resolve(str(file))
    assert refusal.value.hint == f"chmod o-rwx {file}"
    assert refusal.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"a\0b"])
def test_what_is_no_line_of_text_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as refusal:
        resolve(str(file))
    told = f"{refusal.value.message} {refusal.value.hint}"
    assert "lines" not in told
    assert str(file) in told
    assert refusal.value.__cause__ is None


def test_an_overlong_file_is_refused(file: Path) -> None:
    file.write_bytes(b"x" * (LIMIT + 1))
    with pytest.raises(ConfigurationError, match="longer than"):
        resolve(str(file))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        resolve(str(tmp_path / "none"))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="directory"):
        resolve(str(tmp_path))


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError, match="no regular file"):
        resolve(str(path))


@pytest.mark.parametrize("value", [None, "", "\n"])
def test_a_variable_that_is_empty_or_not_set_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MY_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_SECRET", value)
    with pytest.raises(ConfigurationError, match="MY_SECRET is not set or empty"):
        resolve("MY_SECRET")


def test_a_secret_is_masked_wherever_it_stands() -> None:
    assert mask("a s3cret, s3cretly", ["s3cret"]) == "a …, …ly"


def test_the_longest_secret_is_masked_first() -> None:
    assert mask("jane:s3cret s3cret", ["s3cret", "jane:s3cret"]) == "… …"


def test_an_empty_secret_masks_nothing() -> None:
    assert mask("text", [""]) == "text"
