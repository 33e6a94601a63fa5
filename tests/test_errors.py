from edgeclip.errors import DataError, EdgeclipError


def test_message_says_got_expected_and_fix_on_one_line():
    error = DataError("an empty\nfolder", expected="  images", fix="add some")
    assert str(error) == "an empty folder; expected images; add some"
    assert isinstance(error, EdgeclipError)
