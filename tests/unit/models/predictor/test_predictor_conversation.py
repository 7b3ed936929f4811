"""Conversation with a predictor process that answers wrongly, or not to the end: no process is started."""

from __future__ import annotations

import socket
import threading
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from inference.errors import PredictionFailed
from inference.models.predictor.client import PredictorCrashed, PredictorProcess
from inference.models.predictor.protocol import Failed, Predict, Predicted

PATIENCE_S = 30.0


class Impostor:
    """Plays the process on the other end of the socket, so that a test can say the wrong thing."""

    def __init__(self, predict_timeout_s: float = 3.0) -> None:
        self.predictor = PredictorProcess({}, max_batch_size=8, predict_timeout_s=predict_timeout_s, load_timeout_s=120.0)
        ours, theirs = socket.socketpair()
        self.predictor._connection = Connection(ours.detach())
        self.connection: Connection[Any, Any] = Connection(theirs.detach())
        self._ended: list[BaseException | None] = []
        self._thread: threading.Thread | None = None

    def predict(self, slots: list[int]) -> None:
        """Call `predict` on a thread of its own and take its message."""

        def call() -> None:
            try:
                self.predictor.predict("digits", slots)
            except Exception as error:  # noqa: BLE001 the test looks at it
                self._ended.append(error)
            else:
                self._ended.append(None)

        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()
        assert self.connection.recv() == Predict("digits", tuple(slots))

    def error(self, within_s: float = 5.0) -> BaseException | None:
        """Return the error that `predict` raised; fail when it does not end."""
        assert self._thread is not None
        self._thread.join(within_s)
        assert self._ended, f"predict has not ended after {within_s:g} s"
        return self._ended[0]

    def close(self) -> None:
        self.connection.close()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
        self.predictor.stop()


class TestTheConversation:
    def test_a_failure_is_the_models(self) -> None:
        with closing(Impostor()) as impostor:
            impostor.predict([0])
            impostor.connection.send(Failed("ValueError: no"))
            error = impostor.error()
            assert isinstance(error, PredictionFailed)
            assert "ValueError: no" in error.detail

    def test_clients_hear_what_is_public_of_it(self) -> None:
        with closing(Impostor()) as impostor:
            impostor.predict([0])
            impostor.connection.send(Failed("OSError: no /srv/models/net.h5", "OSError"))
            error = impostor.error()
            assert isinstance(error, PredictionFailed)
            assert (error.public, error.to_dict()["detail"]) == ("the model raised OSError", "the model raised OSError")
            assert "/srv/models/net.h5" in error.detail

    def test_an_end_in_the_middle_of_an_answer_is_a_crash(self) -> None:
        with closing(Impostor()) as impostor:
            impostor.predict([0])
            impostor.connection.send(Predicted(1.0))
            impostor.connection.close()
            assert isinstance(impostor.error(), PredictorCrashed)

    def test_a_hang_in_the_middle_of_an_answer_is_a_crash(self) -> None:
        with closing(Impostor(predict_timeout_s=0.2)) as impostor:
            impostor.predict([0])
            impostor.connection.send(Predicted(1.0))
            assert isinstance(impostor.error(), PredictorCrashed)

    def test_values_that_are_no_row_for_each_image_are_the_models_failure(self) -> None:
        with closing(Impostor()) as impostor:
            impostor.predict([0, 1])
            impostor.connection.send(Predicted(1.0))
            impostor.connection.send_bytes(np.zeros(3, "<f4").tobytes())
            assert isinstance(impostor.error(), PredictionFailed)
