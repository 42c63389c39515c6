"""Names, quantities, templates, pages."""

import pytest

from flyte_manager.domain.errors import IllegalName, NotGiven, RunEnded
from flyte_manager.domain.filters import BadLimit, BadToken, Query, next_token, page
from flyte_manager.domain.ids import ActionId, RunId, check_action, check_run
from flyte_manager.domain.tasks import fill_in, quantity


@pytest.mark.parametrize("name", ["a", "r1", "a-b", "a" * 30])
def test_legal_run_names(name: str) -> None:
    check_run(RunId("flytesnacks", "development", name))


@pytest.mark.parametrize("name", ["1a", "A", "a-", "a_b", "a" * 31, "a\n", "../a"])
def test_illegal_run_names(name: str) -> None:
    with pytest.raises(IllegalName):
        check_run(RunId("flytesnacks", "development", name))


@pytest.mark.parametrize("name", ["..", "a/b", ".a", "a.", "ä", "a" * 64, "a\n"])
def test_illegal_action_names(name: str) -> None:
    with pytest.raises(IllegalName):
        check_action(ActionId(RunId("flytesnacks", "development", "r1"), name))


@pytest.mark.parametrize("org", ["o" * 256, "o\n"])
def test_illegal_orgs(org: str) -> None:
    check_run(RunId("flytesnacks", "development", "r1", "o" * 255))
    with pytest.raises(IllegalName, match="up to 255 printable characters"):
        check_run(RunId("flytesnacks", "development", "r1", org))


def test_what_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(NotGiven, match="run name is required"):
        check_run(RunId("flytesnacks", "development", ""))
    with pytest.raises(NotGiven, match="domain is required"):
        check_run(RunId("flytesnacks", "", "r1"))
    with pytest.raises(IllegalName, match="domain 'Moon'"):
        check_run(RunId("flytesnacks", "Moon", "r1"))


def test_the_org_is_no_part_of_a_name() -> None:
    assert RunId("p", "d", "r", "127") == RunId("p", "d", "r", "")
    assert len({RunId("p", "d", "r", "127"), RunId("p", "d", "r", "local")}) == 1


def test_a_refusals_message_is_its_docstring_filled_in() -> None:
    refusal = RunEnded(run="r1", phase="ABORTED", parent="a0")
    assert str(refusal) == "action 'a0' of run 'r1' has ended (ABORTED): nothing more is enqueued under it."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("1Gi", 1 << 30),
        ("1k", 1000),
        ("1e3", 1000),
        (" 2 ", 2),
        ("3Ei", 3 << 60),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "-1", "lots", "1gi", "1 2", "1e400", "0x10", "nan", "inf"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        quantity(text)


def test_templates_are_filled_in_and_unknown_ones_stay() -> None:
    args = ["{{.input}}", "{{ .OutputPrefix }}/x", "{{.unknown}}", "plain"]
    filled = fill_in(args, {"input": "/in/{{.outputPrefix}}", "outputPrefix": "/out"})
    assert filled == ["/in/{{.outputPrefix}}", "/out/x", "{{.unknown}}", "plain"]


def test_pages() -> None:
    assert page(0, "") == (50, 0)
    assert page(10, "20") == (10, 20)
    assert next_token(Query(limit=10, offset=20), 11) == "30"
    assert next_token(Query(limit=10, offset=20), 10) == ""
    with pytest.raises(BadLimit):
        page(1001, "")
    for token in ("x", "-1", "²", "1" * 12):
        with pytest.raises(BadToken):
            page(10, token)
