"""Each state that a pod can be in, and what it means for the attempt."""

import pytest

from flyte_manager.domain.attempts import ErrorKind, Observation, Presence, Transition
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes.pod_status import kept
from flyte_manager.kubernetes.verdict import VerdictSettings, judge
from tests.unit.kubernetes import statuses
from tests.unit.kubernetes.statuses import (
    ATTEMPT,
    Document,
    deleted,
    disrupted,
    pod,
    running,
    scheduled,
    terminated,
    time,
    unscheduled,
    waiting,
    with_states,
)
from tests.unit.kubernetes.verdicts import SETTINGS, exit_of, failure_of, seen

SCHEDULER = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
BACK_OFF = 'Back-off pulling image "nowhere/img:1": ErrImagePull: pull access denied, repository does not exist'


def test_a_pod_without_our_labels_is_no_attempt() -> None:
    document = pod()
    for wrong in ({}, {"flyte.org/attempt": "x"}, {"flyte.org/attempt": "0"}, {"flyte.org/run": ""}):
        labels = {**document["metadata"]["labels"], **wrong} if wrong else {}
        assert kept({**document, "metadata": {**document["metadata"], "labels": labels}}) is None
    assert seen({**document, "metadata": {"name": "x"}}).presence is Presence.ABSENT
    short = kept(document)
    assert short is not None
    assert short.attempt == ATTEMPT


def test_a_pod_at_which_no_scheduler_looked_is_queued() -> None:
    assert seen(pod()) == Observation(Presence.ALIVE, phase=Phase.QUEUED)


@pytest.mark.parametrize("reason", ["Unschedulable", "SchedulingGated", "SchedulerError"])
def test_an_unschedulable_pod_waits_for_resources_with_the_schedulers_words_for_ever(reason: str) -> None:
    told = seen(unscheduled(pod(), SCHEDULER, reason), now=1_000_000)
    assert told.presence is Presence.ALIVE
    assert (told.phase, told.reason, told.failure) == (Phase.WAITING_FOR_RESOURCES, SCHEDULER, None)
    assert told.transitions == (Transition(Phase.WAITING_FOR_RESOURCES, time(0)),)


def test_it_fails_as_the_systems_when_pending_has_a_limit() -> None:
    settings = VerdictSettings(pending_seconds=60)
    document = unscheduled(pod(), SCHEDULER)
    short = kept(document)
    assert short is not None
    assert judge(short, now=time(20), settings=settings).again == 40
    failure = failure_of(document, 60, settings)
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.SYSTEM, "PodPendingTimeout", True)
    assert SCHEDULER in failure.message


def test_the_limit_counts_while_containers_are_made_but_not_while_an_init_container_works() -> None:
    settings = VerdictSettings(pending_seconds=60)
    creating = with_states(pod(), waiting("ContainerCreating"))
    assert failure_of(creating, 61, settings).code == "PodPendingTimeout"
    works = with_states(pod(inits=1), waiting("PodInitializing"), inits=(running(),))
    assert seen(works, 61, settings).failure is None


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (scheduled(pod()), "ContainerCreating"),
        (with_states(pod(), waiting("ContainerCreating")), "ContainerCreating"),
        (with_states(pod(), waiting("PodInitializing")), "ContainerCreating"),
        (with_states(pod(), waiting("ErrImagePull", "no such host")), "ErrImagePull: no such host"),
        (with_states(pod(), waiting("ImagePullBackOff", BACK_OFF)), f"ImagePullBackOff: {BACK_OFF}"),
        (
            with_states(pod(inits=1), waiting("PodInitializing"), inits=(running(),)),
            "init container 'init0' runs",
        ),
        (
            with_states(
                pod(inits=1, sidecars=1),
                waiting("PodInitializing"),
                waiting("ErrImagePull", "later"),
                inits=(waiting("ErrImagePull", "first"),),
            ),
            "ErrImagePull: first",
        ),
        (
            with_states(pod(sidecars=1), waiting("ContainerCreating"), waiting("ErrImagePull", "side")),
            "ErrImagePull: side",
        ),
    ],
)
def test_a_scheduled_pod_initializes_with_the_kubelets_words(document: Document, reason: str) -> None:
    told = seen(document)
    assert (told.presence, told.phase, told.failure) == (Presence.ALIVE, Phase.INITIALIZING, None)
    assert told.reason == reason
    assert told.transitions == (Transition(Phase.INITIALIZING, time(1)),)


def test_an_image_that_can_not_be_pulled_for_three_minutes_is_the_users_failure() -> None:
    document = with_states(pod(), waiting("ImagePullBackOff", BACK_OFF))
    short = kept(document)
    assert short is not None
    assert judge(short, now=time(100), settings=SETTINGS).again == 82  # counted from ContainersReady's time
    assert seen(document, 181).failure is None
    told = seen(document, 182)
    assert told.presence is Presence.ALIVE
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code) == (ErrorKind.USER, "ImagePullBackOff")
    assert told.failure.recoverable
    assert BACK_OFF in told.failure.message
    assert "after 180 s" in told.failure.message


def test_an_image_is_still_being_tried_at_errimagepull_however_late() -> None:
    assert seen(with_states(pod(), waiting("ErrImagePull", "no such host")), 1000).failure is None


@pytest.mark.parametrize("words", ["429 Too Many Requests", "toomanyrequests: You have reached your pull rate limit"])
def test_a_registry_that_limits_requests_is_the_systems_failure(words: str) -> None:
    failure = failure_of(with_states(pod(), waiting("ImagePullBackOff", words)), 200)
    assert (failure.kind, failure.code) == (ErrorKind.SYSTEM, "ImagePullBackOff")
    assert "mirror" in failure.message


def test_the_time_of_init_containers_is_no_time_of_pulling() -> None:
    long_init = with_states(
        pod(inits=1), waiting("ImagePullBackOff", BACK_OFF), inits=(terminated(0, start=2, end=500),)
    )
    assert seen(long_init, 600).failure is None
    assert failure_of(long_init, 680).code == "ImagePullBackOff"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("InvalidImageName", 'couldn\'t parse image name "A B": invalid reference format'),
        ("ErrImageNeverPull", 'Container image "x:1" is not present with pull policy of Never'),
        ("CreateContainerConfigError", 'secret "db-password" not found'),
    ],
)
def test_what_waiting_can_not_mend_fails_for_good_at_once_with_the_kubelets_words(reason: str, words: str) -> None:
    failure = failure_of(with_states(pod(), waiting(reason, words)), 3)
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.USER, reason, False)
    assert words in failure.message


@pytest.mark.parametrize(
    "words",
    [
        "failed to sync secret cache: timed out waiting for the condition",
        "services have not yet been read at least once, cannot construct envvars",
        'Get "https://10.96.0.1:443/api/v1/secrets/x": dial tcp 10.96.0.1:443: connect: connection refused',
    ],
)
def test_a_kubelet_that_could_not_look_for_a_secret_yet_looks_again(words: str) -> None:
    document = with_states(pod(), waiting("CreateContainerConfigError", words))
    assert (seen(document, 3).failure, seen(document, 3).phase) == (None, Phase.INITIALIZING)
    failure = failure_of(document, 182)
    assert (failure.kind, failure.recoverable) == (ErrorKind.SYSTEM, True)
    assert words in failure.message


def test_a_container_that_can_not_be_created_fails_for_good_after_three_minutes() -> None:
    document = with_states(pod(), waiting("CreateContainerError", "context deadline exceeded"))
    assert seen(document, 181).failure is None
    failure = failure_of(document, 182)
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.USER, "CreateContainerError", False)
    assert "context deadline exceeded" in failure.message


def test_a_reason_that_nobody_knows_is_the_systems_failure_after_a_while() -> None:
    document = with_states(pod(), waiting("CNIBroken", "no bridge"))
    assert seen(document, 100).reason == "CNIBroken: no bridge"
    failure = failure_of(document, 182)
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.SYSTEM, "CNIBroken", True)


def test_an_init_container_that_does_not_start_is_named() -> None:
    document = with_states(pod(inits=1), waiting("PodInitializing"), inits=(waiting("InvalidImageName", "bad"),))
    assert "init container 'init0'" in failure_of(document).message


def test_a_running_pod_tells_when_it_was_scheduled_and_started() -> None:
    told = seen(with_states(pod(), running(4), phase="Running"))
    assert told == Observation(
        Presence.ALIVE,
        started_at=time(4),
        phase=Phase.RUNNING,
        transitions=(Transition(Phase.INITIALIZING, time(1)), Transition(Phase.RUNNING, time(4))),
    )


def test_a_sidecar_in_trouble_does_not_disturb_a_task_that_runs() -> None:
    told = seen(with_states(pod(sidecars=1), running(), waiting("ImagePullBackOff", "x"), phase="Running"), 1000)
    assert (told.phase, told.failure) == (Phase.RUNNING, None)


def test_a_running_pod_that_is_being_deleted_lives_until_its_end() -> None:
    told = seen(deleted(with_states(pod(), running(), phase="Running"), 9), 20)
    assert (told.presence, told.phase, told.failure) == (Presence.ALIVE, Phase.RUNNING, None)


def test_a_pod_whose_node_is_silent_long_after_its_deletion_is_lost() -> None:
    document = deleted(with_states(pod(), running(), phase="Running"), 300)
    document = disrupted(document, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", 300)
    short = kept(document)
    assert short is not None
    assert judge(short, now=time(310), settings=SETTINGS).again == 80
    assert seen(document, 389).presence is Presence.ALIVE
    told = seen(document, 390)
    assert told.presence is Presence.VANISHED
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code) == (ErrorKind.SYSTEM, "NodeLost")
    assert "node-1" in told.failure.message
    assert "NoExecute" in told.failure.message


def test_a_pod_in_phase_unknown_says_that_its_node_is_silent() -> None:
    told = seen(with_states(pod(), running(), phase="Unknown"))
    assert told.presence is Presence.ALIVE
    assert told.reason == "node node-1 does not answer"


def test_without_an_annotation_the_first_container_is_the_primary_one() -> None:
    document = with_states(pod(sidecars=1), terminated(4), running(), phase="Running")
    document["metadata"]["annotations"] = None
    assert exit_of(document).code == 4
    document["metadata"]["annotations"] = {"primary_container_name": "side0"}
    assert seen(document).presence is Presence.ALIVE


def test_versions_and_readiness_are_no_change() -> None:
    before = with_states(pod(), running(), phase="Running")
    after = with_states(pod(), running(), phase="Running")
    after["metadata"]["resourceVersion"] = "200"
    after["status"]["conditions"] = [
        statuses.condition("PodScheduled", True, 1),
        statuses.condition("ContainersReady", False, 7, reason="ContainersNotReady"),
    ]
    assert kept(before) == kept(after)
    assert kept(before) != kept(deleted(after, 9))
    assert kept(before) != kept(with_states(pod(), terminated(0), phase="Running"))


def test_a_very_long_message_is_cut() -> None:
    told = seen(unscheduled(pod(), "x" * 100_000))
    assert len(told.reason) < 3000
