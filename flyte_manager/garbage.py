"""When Python looks for garbage: objects that refer to each other in a circle.

All threads stand still while it is found and freed, some 2 microseconds an object, and each call leaves a hundred: so
it is looked for often while calls are served. Not so at the start: lists of thousands of objects make hundreds of
thousands of dicts there, none of them garbage.
"""

import gc

STARTING = (20_000, 10, 10)
SERVING = (2_000, 10, 10)


def starting() -> None:
    gc.set_threshold(*STARTING)


def serving() -> None:
    """What is there by now stays, and is not looked through again."""
    gc.freeze()
    gc.set_threshold(*SERVING)
