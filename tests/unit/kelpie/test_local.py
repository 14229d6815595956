"""Where the state of a local cloud lies."""

from kelpie.local import find_home


def test_it_lies_in_the_current_folder_unless_one_above_has_it(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_home({}, below) == below / ".kelpie"
    (tmp_path / ".kelpie").mkdir()
    assert find_home({}, below) == tmp_path / ".kelpie"
    (below / ".kelpie").mkdir()
    assert find_home({}, below) == below / ".kelpie"


def test_kelpie_home_names_another_place(tmp_path):
    assert find_home({"KELPIE_HOME": str(tmp_path / "elsewhere")}, tmp_path) == tmp_path / "elsewhere"
    assert find_home({"KELPIE_HOME": ""}, tmp_path) == tmp_path / ".kelpie"
