"""A task that asks a human."""

import flyte
import flyte.errors

env = flyte.TaskEnvironment(name="conditions")


@env.task
async def asks() -> str:
    question = await flyte.new_condition.aio("how-many", prompt="How many?", data_type=int)
    answer = await question.wait.aio()
    return f"{type(answer).__name__} {answer}"


@env.task
async def asks_in_vain(seconds: int = 1) -> str:
    question = await flyte.new_condition.aio("anyone", prompt="Is anyone there?", data_type=bool, timeout=seconds)
    try:
        return str(await question.wait.aio())
    except flyte.errors.ConditionTimedoutError:
        return "nobody"
