"""The helper that moves the inputs and outputs of a ContainerTask, in its pod: `python -m flyte_manager.copilot`."""
