"""What can stop a run: each error is a message for a person and a stable exit code."""


class RunError(Exception):
    """A run cannot go on; the message is at most three lines and says what to do."""

    exit_code = 1


class ConfigError(RunError):
    """A config or a command line that cannot be run."""

    exit_code = 2


class DataError(RunError):
    """A dataset that is missing, malformed or unreadable."""

    exit_code = 3


class CheckpointError(RunError):
    """A checkpoint that cannot be written, or none that can be trusted."""

    exit_code = 4


class NonFiniteError(RunError):
    """Training produced a NaN or an infinity, in one of `steps`."""

    exit_code = 5

    def __init__(self, message: str, steps: range = range(0)):
        super().__init__(message)
        self.steps = steps


class OutOfMemoryError(RunError):
    """The devices or the host have too little memory for this batch and model."""

    exit_code = 5


class WorkdirBusyError(RunError):
    """Another run holds the workdir."""

    exit_code = 6


class PeerError(RunError):
    """Another process of the run died or never came; JAX's own runtime ends with 134 as well."""

    exit_code = 134
