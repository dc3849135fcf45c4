"""Each rule of tests/tidy.py finds what it forbids, and only that."""

import importlib.util
from pathlib import Path

import pytest

TIDY = Path(__file__).resolve().parents[1] / "tidy.py"


@pytest.fixture
def tidy(tmp_path):
    """tidy.py at work on a folder of its own."""
    spec = importlib.util.spec_from_file_location("tidy_under_test", TIDY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path
    return module


def write(tidy, name, text):
    path = tidy.ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def found(check):
    return [violation.split(":")[0] for violation in check()]


def test_includes_may_not_point_up_or_miss_their_folder(tidy):
    write(tidy, "decode/good.c", '#include "decode/a.h"\n')
    write(tidy, "decode/a.h", '#include "loader/b.h"\n')
    write(tidy, "loader/b.h", '#include "decode/a.h"\n')
    write(tidy, "loader/c.c", '#include "b.h"\n')
    write(tidy, "ipc/d.c", '#include "decode/a.h"\n')
    assert found(tidy.includes_point_down) == ["decode/a.h", "ipc/d.c", "loader/c.c"]


def test_a_library_has_one_home(tidy):
    write(tidy, "decode/jpeg.c", "#include <jpeglib.h>\n#include <stdio.h>\n")
    write(tidy, "loader/a.c", "#include <jpeglib.h>\n")
    write(tidy, "loader/b.c", "#include <unheard_of.h>\n")
    assert found(tidy.libraries_have_one_home) == ["loader/a.c", "loader/b.c"]


def test_leaves_have_no_threads_and_no_clock(tidy):
    write(tidy, "decode/a.c", "#include <time.h>\n")
    write(tidy, "ipc/b.c", "#include <pthread.h>\n#include <sys/mman.h>\n")
    write(tidy, "loader/c.c", "#include <pthread.h>\n")
    assert found(tidy.leaves_stay_pure) == ["decode/a.c", "ipc/b.c"]


def test_long_functions_are_found_in_c_and_python(tidy):
    fits = "void f(void)\n{\n" + "    g();\n" * 67 + "}\n"
    write(tidy, "loader/fits.c", "struct s {\n    int a;\n};\n\n" + fits)
    write(tidy, "loader/long.c", fits.replace("{\n", "{\n    g();\n", 1))
    write(tidy, "tools/fits.py", "def f():\n" + "    g()\n" * 69)
    write(tidy, "tools/long.py", "def f():\n" + "    g()\n" * 70)
    assert found(tidy.functions_fit_a_screen) == ["loader/long.c", "tools/long.py"]


def test_long_files_and_lines_are_found(tidy):
    write(tidy, "loader/a.c", "\n" * 601)
    write(tidy, "loader/b.c", "x" * 101 + "\n" + "\n" * 599)
    assert found(tidy.files_stay_short) == ["loader/a.c"]
    assert found(tidy.lines_stay_short) == ["loader/b.c"]


def test_markers_and_private_paths_are_found(tidy):
    write(tidy, "docs/a.md", "TO" + "DO: say more\n")
    write(tidy, "docs/b.md", "cd /ho" + "me/somebody/penstock\n")
    write(tidy, "docs/c.md", "the word todo, and ~/penstock\n")
    assert found(tidy.no_markers_are_left) == ["docs/a.md"]
    assert found(tidy.no_private_paths) == ["docs/b.md"]


def test_a_c_file_name_occurs_once(tidy):
    write(tidy, "decode/status.h", "")
    write(tidy, "loader/status.h", "")
    assert found(tidy.names_are_unique) == ["loader/status.h"]


def test_a_header_stands_alone(tidy):
    write(tidy, "loader/a.h", "size_t f(void);\n")
    write(tidy, "loader/b.h", "#include <stddef.h>\nsize_t f(void);\n")
    assert found(tidy.headers_stand_alone) == ["loader/a.h"]


def test_what_is_not_ours_is_left_alone(tidy):
    write(tidy, ".venv/a.py", "x" * 101)
    write(tidy, "build/b.c", "x" * 101)
    assert found(tidy.lines_stay_short) == []
