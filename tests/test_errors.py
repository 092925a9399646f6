from torchgraft.errors import nearest


def test_a_name_that_is_known_twice_is_named_once():
    assert nearest("lrr", ["lr", "lr", "lr"]) == "did you mean lr?"


def test_nothing_near_says_nothing():
    assert nearest("xyz", ["head"]) == ""
