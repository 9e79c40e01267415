"""The exceptions whose text is written for the user: what was wrong, where, and what to do."""


class GanvasError(Exception):
    """Base of every error that is the user's to mend. The CLI prints its text, without a traceback, and exits 1."""


class ConfigError(GanvasError):
    """An option, a preset or a combination of options that cannot be."""


class DataError(GanvasError):
    """Images that cannot be found, read or used."""


class RunError(GanvasError):
    """A run folder or checkpoint that cannot be written, read or continued."""


class DivergedError(RunError):
    """Training produced NaN or infinity; the last good checkpoint is kept."""
