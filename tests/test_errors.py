from edgeclip.errors import DataError, EdgeclipError


def test_message_says_got_expected_and_fix_on_one_line():
    error = DataError("an empty\nfolder", expected="  images", fix="add some")
    assert str(error) == "an empty folder; expected images; add some"
    assert isinstance(error, EdgeclipError)


def test_a_long_name_does_not_hide_the_rest_of_the_line():
    error = DataError("a" * 5000 + "b", expected="another", fix="shorten it")
    assert str(error) == f"{'a' * 200} ... {'a' * 199}b; expected another; shorten it"
