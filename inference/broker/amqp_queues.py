"""Declaration of the models' queues on RabbitMQ, by the version of the server.

From version 4.3 on a quorum queue has strict priorities if it is declared with `x-max-priority`. The arguments of a queue that
exists cannot change, and RabbitMQ refuses a declaration with others. So the declaration with priorities is tried on a channel of
its own: a queue that was made by an older server, or without priorities, is used as it is, in the order of acceptance.
"""

from __future__ import annotations

import logging
from typing import Any

from amqp.exceptions import PreconditionFailed
from kombu import Queue

from inference.broker import HIGHEST_PRIORITY

logger = logging.getLogger(__name__)

MAX_PRIORITY = "x-max-priority"
_QUEUE_TYPE = "x-queue-type"
#: First version of RabbitMQ whose quorum queues have strict priorities.
_STRICT_PRIORITIES = (4, 3)


def has_strict_priorities(connection: Any) -> bool:
    """Return whether quorum queues of the server can have priorities.

    Args:
        connection: an open connection of py-amqp.
    """
    version = str(connection.server_properties.get("version", ""))
    try:
        return tuple(int(part) for part in version.split(".")[:2]) >= _STRICT_PRIORITIES
    except ValueError:
        return False


class ModelQueue(Queue):  # type: ignore[misc] # kombu has no types
    """Queue of a model on RabbitMQ; `has_priorities` is known once it is declared."""

    queue_arguments: dict[str, Any]

    @property
    def has_priorities(self) -> bool:
        return MAX_PRIORITY in self.queue_arguments

    def queue_declare(self, nowait: bool = False, passive: bool = False, channel: Any = None) -> Any:
        channel = channel or self.channel
        is_quorum = self.queue_arguments.get(_QUEUE_TYPE) == "quorum"
        if is_quorum and not passive and not self.has_priorities and has_strict_priorities(channel.connection):
            with_priorities = self.queue_arguments | {MAX_PRIORITY: HIGHEST_PRIORITY}
            if self._is_taken(channel.connection, with_priorities):
                self.queue_arguments = with_priorities
        try:
            return super().queue_declare(nowait=nowait, passive=passive, channel=channel)
        except PreconditionFailed as error:
            logger.error(  # noqa: TRY400 the caller logs the traceback
                "the queue %s exists with other arguments than broker.queue_type and the server's version ask for (%s);"
                " let it run empty and delete it, as docs/production.md says",
                self.name,
                error.reply_text,
            )
            raise

    def _is_taken(self, connection: Any, arguments: dict[str, Any]) -> bool:
        """Declare the queue with these arguments; return whether the server takes them."""
        channel = connection.channel()  # the server closes it if it refuses the declaration
        try:
            channel.queue_declare(self.name, durable=True, auto_delete=False, arguments=arguments)
        except PreconditionFailed as error:
            logger.warning("the queue %s has no priorities, since it was made without them: %s", self.name, error.reply_text)
            return False
        finally:
            channel.close()
        return True
