"""A task whose module its environment lacks."""

import flyte

env = flyte.TaskEnvironment(name="lacking")


@env.task
async def learns() -> str:
    import surely_not_installed_here.deep  # type: ignore[import-not-found]

    return str(surely_not_installed_here.deep)
