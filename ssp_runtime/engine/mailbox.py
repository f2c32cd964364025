"""What other threads tell a thread to do, and how they wake it."""

import threading
from collections.abc import Callable


class Mailbox:
    def __init__(self) -> None:
        self._commands: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._woken = False
        self.stopping = False

    def __len__(self) -> int:
        return len(self._commands)

    # Any thread

    def post(self, command: Callable[[], None]) -> bool:
        """Has the thread do something; False if it was told to stop before."""
        with self._changed:
            if not self.stopping:
                self._commands.append(command)
                self._changed.notify()
            return not self.stopping

    def wake(self) -> None:
        """Makes the thread look again."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self.stopping = True
            self._changed.notify()

    # The thread itself

    def wait(self, seconds: float) -> None:
        """Until somebody wants something."""
        with self._changed:
            if not (self._commands or self._woken or self.stopping):
                self._changed.wait(seconds)

    def obey(self) -> None:
        """Does all that was posted, in order."""
        with self._changed:
            commands, self._commands = self._commands, []
            self._woken = False
        for command in commands:
            command()
