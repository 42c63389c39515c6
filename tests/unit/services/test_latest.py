"""One message for all who are told the same record."""

from flyte_manager.services.latest import Latest


def test_a_record_that_is_told_again_gets_the_same_message_and_an_equal_one_a_message_of_its_own() -> None:
    latest = Latest[list[str]]()
    record, equal = [1], [1]
    first = latest.of(record, lambda: ["made"])
    assert latest.of(record, lambda: ["made again"]) is first
    assert latest.of(equal, lambda: ["another"]) == ["another"]
    assert latest.of(record, lambda: ["made anew"]) == ["made anew"]
