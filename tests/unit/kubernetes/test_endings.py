"""How attempts end: what the state of a pod that is over says of its task."""

import pytest

from flyte_manager.domain.attempts import ErrorKind, Exit, Presence, StopReason, Transition
from flyte_manager.domain.phases import Phase
from flyte_manager.kubernetes.pod_status import kept
from tests.unit.kubernetes.statuses import (
    Document,
    deleted,
    disrupted,
    pod,
    running,
    scheduled,
    terminated,
    time,
    waiting,
    with_states,
)
from tests.unit.kubernetes.verdicts import exit_of, failure_of, finished, seen


def test_a_pod_that_succeeded_tells_its_times_and_no_failure() -> None:
    told = seen(finished(terminated(0), phase="Succeeded"))
    assert told.presence is Presence.EXITED
    assert told.failure is None
    assert told.exit == Exit(0, time(5), time(8))
    assert told.started_at == time(5)
    assert told.transitions == (Transition(Phase.INITIALIZING, time(1)), Transition(Phase.RUNNING, time(5)))


def test_a_succeeded_pod_of_which_nothing_more_is_told_is_a_success() -> None:
    document = scheduled(pod())
    document["status"]["phase"] = "Succeeded"
    told = seen(document, 12)
    assert (told.exit, told.failure) == (Exit(0, time(12), time(12)), None)


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2), (127, 127), (255, 255), (139, -11), (143, -15)])
def test_a_plain_exit_is_told_by_its_code_alone(code: int, expected: int) -> None:
    told = seen(finished(terminated(code, message="the end of its log")))
    assert told.failure is None
    assert told.exit == Exit(expected, time(5), time(8), detail="the end of its log")


@pytest.mark.parametrize("code", [137, 0, 1])
def test_a_container_short_of_memory_is_the_users_failure_even_if_it_ended_well(code: int) -> None:
    document = finished(terminated(code, "OOMKilled"), phase="Failed" if code else "Succeeded")
    failure = failure_of(document)
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.USER, "OOM", True)
    assert "500Mi" in failure.message


def test_without_a_limit_the_node_had_no_more_memory() -> None:
    document = finished(terminated(137, "OOMKilled"))
    del document["spec"]["containers"][0]["resources"]
    assert "node node-1 had no more" in failure_of(document).message


def test_a_task_over_its_deadline_timed_out() -> None:
    message = "Pod was active on the node longer than the specified deadline"
    for state in (terminated(137), terminated(143), running()):
        told = seen(finished(state, reason="DeadlineExceeded", message=message))
        assert told.failure is None
        assert told.exit is not None
        assert told.exit.reason is StopReason.TIMEOUT
        assert told.exit.detail == message
    never = seen(finished(waiting("ImagePullBackOff"), reason="DeadlineExceeded", message=message))
    assert never.exit is not None
    assert never.exit.reason is StopReason.TIMEOUT


def test_a_task_that_ended_well_before_the_pod_was_over_its_deadline_succeeded() -> None:
    told = seen(finished(terminated(0), reason="DeadlineExceeded"))
    assert (told.failure, told.exit) == (None, Exit(0, time(5), time(8)))


@pytest.mark.parametrize(
    ("reason", "message", "kind", "code"),
    [
        (
            "Evicted",
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 60Mi. Container main was "
            "using 900Mi, request is 100Mi, has larger consumption of memory. ",
            ErrorKind.SYSTEM,
            "Evicted",
        ),
        (
            "Evicted",
            "The node was low on resource: ephemeral-storage. Container main was using 9Gi, request is 0",
            ErrorKind.SYSTEM,
            "Evicted",
        ),
        ("Evicted", "The node had condition: [DiskPressure]. ", ErrorKind.SYSTEM, "Evicted"),
        (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
            ErrorKind.USER,
            "EphemeralStorageExceeded",
        ),
        (
            "Evicted",
            'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ',
            ErrorKind.USER,
            "EphemeralStorageExceeded",
        ),
        ("NodeShutdown", "Pod was terminated in response to imminent node shutdown.", ErrorKind.SYSTEM, "Interrupted"),
        ("Terminated", "Pod was terminated in response to imminent node shutdown.", ErrorKind.SYSTEM, "Interrupted"),
        ("Shutdown", "Node is shutting down", ErrorKind.SYSTEM, "Interrupted"),
        ("NodeAffinity", "Predicate NodeAffinity failed", ErrorKind.SYSTEM, "Interrupted"),
        ("NodeLost", "Node node-1 which was running pod is unresponsive", ErrorKind.SYSTEM, "Interrupted"),
        ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 2000", ErrorKind.SYSTEM, "Interrupted"),
        ("UnexpectedAdmissionError", "Allocate failed due to no devices", ErrorKind.SYSTEM, "Interrupted"),
        ("Preempting", "Preempted in order to admit critical pod", ErrorKind.SYSTEM, "Interrupted"),
        ("UnknownError", "", ErrorKind.SYSTEM, "Interrupted"),
    ],
)
@pytest.mark.parametrize("state", [waiting("ContainerCreating"), terminated(137), terminated(143), terminated(1)])
def test_a_pod_that_was_taken_away_is_the_systems_failure_unless_its_own_limit_was_hit(
    reason: str, message: str, kind: ErrorKind, code: str, state: Document
) -> None:
    failure = failure_of(finished(state, reason=reason, message=message))
    assert (failure.kind, failure.code, failure.recoverable) == (kind, code, True)
    assert message.strip() in failure.message


@pytest.mark.parametrize(
    "reason",
    [
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
    ],
)
def test_a_disrupted_pod_is_the_systems_failure(reason: str) -> None:
    document = disrupted(deleted(finished(terminated(143)), 7), reason, "it had to make room", 7)
    failure = failure_of(document)
    assert (failure.kind, failure.code) == (ErrorKind.SYSTEM, "Interrupted")
    assert reason in failure.message
    assert "it had to make room" in failure.message


def test_a_task_that_failed_before_the_disruption_failed_by_itself() -> None:
    document = disrupted(finished(terminated(1, end=8)), "DeletionByPodGC", "too many", 50)
    assert seen(document, 60).failure is None
    assert exit_of(document, 60).code == 1


def test_an_evicted_pod_whose_task_had_ended_well_succeeded() -> None:
    assert seen(finished(terminated(0), reason="Evicted", message="The node was low on resource")).failure is None


def test_a_killed_primary_container_was_interrupted() -> None:
    failure = failure_of(finished(terminated(137)))
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.SYSTEM, "Interrupted", True)
    assert exit_of(finished(terminated(137))).code == -9


@pytest.mark.parametrize("reason", ["ContainerStatusUnknown", "UnknownError"])
def test_an_end_that_the_kubelet_does_not_know_was_an_interruption(reason: str) -> None:
    words = "The container could not be located when the pod was terminated"
    told = seen(finished(terminated(137, reason, message=words, start=None, end=None)))
    assert told.exit is None
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code) == (ErrorKind.SYSTEM, "Interrupted")
    assert words in told.failure.message


@pytest.mark.parametrize("reason", ["StartError", "ContainerCannotRun"])
def test_a_program_that_the_image_lacks_is_the_users_failure_for_good(reason: str) -> None:
    words = 'exec: "a0": executable file not found in $PATH: unknown'
    told = seen(finished(terminated(128, reason, message=words, start=None)))
    assert told.exit is None
    assert told.transitions == (Transition(Phase.INITIALIZING, time(1)),)
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code, told.failure.recoverable) == (ErrorKind.USER, reason, False)
    assert words in told.failure.message


def test_a_container_that_the_runtime_could_not_start_is_the_systems_failure() -> None:
    failure = failure_of(finished(terminated(128, "StartError", message="cgroup: no space left", start=None)))
    assert (failure.kind, failure.code, failure.recoverable) == (ErrorKind.SYSTEM, "StartError", True)


def test_an_init_container_that_fails_is_the_users_failure() -> None:
    document = with_states(
        pod(inits=2),
        waiting("PodInitializing"),
        inits=(terminated(0), terminated(3, message="no route")),
        phase="Failed",
    )
    told = seen(document)
    assert (told.presence, told.exit) == (Presence.EXITED, None)
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code) == (ErrorKind.USER, "InitContainerFailed")
    assert "'init1'" in told.failure.message
    assert "exit code 3" in told.failure.message
    assert "no route" in told.failure.message


def test_an_init_container_short_of_memory_or_killed_is_judged_like_the_task() -> None:
    for reason, code, kind in (("OOMKilled", "OOM", ErrorKind.USER), ("Error", "Interrupted", ErrorKind.SYSTEM)):
        document = with_states(
            pod(inits=1), waiting("PodInitializing"), inits=(terminated(137, reason),), phase="Failed"
        )
        failure = failure_of(document)
        assert (failure.kind, failure.code) == (kind, code)
        assert "'init0'" in failure.message


def test_a_task_that_ended_while_its_sidecars_run_has_ended() -> None:
    document = with_states(pod(sidecars=2), terminated(0), running(), running(), phase="Running")
    told = seen(document)
    assert (told.presence, told.exit, told.failure) == (Presence.EXITED, Exit(0, time(5), time(8)), None)
    short = kept(document)
    assert short is not None
    assert short.over
    assert not short.all_over


def test_a_sidecar_that_failed_does_not_fail_a_task_that_ended_well() -> None:
    told = seen(with_states(pod(sidecars=1), terminated(0), terminated(1), phase="Failed"))
    assert (told.exit, told.failure) == (Exit(0, time(5), time(8)), None)


def test_a_native_sidecar_is_no_init_container_to_wait_for_or_to_blame() -> None:
    document = pod(inits=1)
    document["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    assert seen(with_states(document, waiting("ContainerCreating"), inits=(running(),))).reason == "ContainerCreating"
    ended = with_states(document, terminated(1), inits=(terminated(137),), phase="Failed")
    assert (exit_of(ended).code, seen(ended).failure) == (1, None)


def with_uploader(main: Document, uploader: Document, *sides: Document, phase: str = "Running") -> Document:
    document = pod(inits=1, sidecars=len(sides))
    document["spec"]["initContainers"][0] |= {"name": "flyte-upload", "restartPolicy": "Always"}
    return with_states(document, main, *sides, inits=(uploader,), phase=phase)


def test_an_attempt_whose_results_are_being_uploaded_still_runs() -> None:
    document = with_uploader(terminated(0), running(3))
    told = seen(document)
    assert (told.presence, told.phase, told.failure) == (Presence.ALIVE, Phase.RUNNING, None)
    ended = seen(with_uploader(terminated(0), terminated(0, start=3, end=20), phase="Succeeded"))
    assert (ended.exit, ended.failure) == (Exit(0, time(5), time(20)), None)


def test_the_uploader_of_a_program_that_failed_is_not_waited_for() -> None:
    assert exit_of(with_uploader(terminated(3), running(3))).code == 3


def test_a_container_task_that_fails_is_told_by_its_exit_code_not_by_the_outputs_that_are_missing() -> None:
    failure = seen(with_uploader(terminated(3), running(3))).failure
    assert failure is not None
    assert (failure.kind, failure.code) == (ErrorKind.USER, "ProcessDied")
    assert "exit code 3" in failure.message


def test_an_uploader_that_waits_for_sidecars_is_held_up() -> None:
    held = kept(with_uploader(terminated(0), running(3), running(4)))
    free = kept(with_uploader(terminated(0), running(3), terminated(0)))
    assert held is not None
    assert held.held_up
    assert free is not None
    assert not free.held_up


@pytest.mark.parametrize("helper", ["flyte-upload", "flyte-download"])
def test_a_helper_that_failed_tells_why_in_its_error_file_as_the_task_does(helper: str) -> None:
    if helper == "flyte-upload":
        document = with_uploader(terminated(0), terminated(1, start=3, end=20, message="no bucket"), phase="Succeeded")
    else:
        document = pod(inits=1)
        document["spec"]["initContainers"][0]["name"] = helper
        failed = terminated(1, start=3, end=20, message="no bucket")
        document = with_states(document, waiting("PodInitializing"), inits=(failed,), phase="Failed")
    told = seen(document, 30)
    detail = f"init container '{helper}': no bucket"
    assert (told.failure, told.exit) == (None, Exit(1, time(3), time(20), detail=detail))


def test_a_task_whose_pod_was_deleted_under_it_was_deleted_from_outside() -> None:
    for code in (143, 1):
        failure = failure_of(deleted(finished(terminated(code, end=8)), 6))
        assert (failure.kind, failure.code) == (ErrorKind.SYSTEM, "ResourceDeletedExternally")
        assert "r1-a0-0" in failure.message


def test_a_pod_deleted_after_its_end_tells_its_end() -> None:
    assert seen(deleted(finished(terminated(1, end=8)), 9)).failure is None
    assert seen(deleted(finished(terminated(0, end=8), phase="Succeeded"), 6)).failure is None


def test_a_failed_pod_that_says_nothing_was_interrupted() -> None:
    document = scheduled(pod())
    document["status"] |= {"phase": "Failed", "message": "something odd"}
    told = seen(document)
    assert told.exit is None
    assert told.failure is not None
    assert (told.failure.kind, told.failure.code) == (ErrorKind.SYSTEM, "Interrupted")
    assert "something odd" in told.failure.message
