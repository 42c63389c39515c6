"""What the helpers tell the manager: error.pb, as the SDK writes it."""

from flyteidl2.core import execution_pb2

from flyte_manager.blobs.files import Files


class DataProblem(Exception):  # noqa: N818 - told to the user, with a code
    """An input or output that can't be moved, whose owner can cure it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def report(files: Files, problem: DataProblem, results: str) -> None:
    """`results`: the folder of the attempt's results. Raises TransferFailed."""
    document = execution_pb2.ErrorDocument(
        error=execution_pb2.ContainerError(
            code=problem.code,
            message=str(problem),
            kind=execution_pb2.ContainerError.RECOVERABLE,
            origin=execution_pb2.ExecutionError.USER,
        )
    )
    files.write(f"{results}/error.pb", document.SerializeToString())
