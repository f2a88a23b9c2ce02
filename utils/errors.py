"""The one exception that means: what the user gave cannot be used."""


class UserError(ValueError):
    """A configuration, path, file or argument that cannot be used.

    The message is one line that says what is wrong, where, and what to do. Programs print it and exit with code 2; a
    traceback would only hide it.
    """
