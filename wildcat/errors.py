"""The one exception type for mistakes that a user can make and mend."""


class WildcatError(ValueError):
    """A mistake of the user's: bad file, bad value, bad option.

    The message is one sentence: what is wrong, where, and what is allowed. The command line prints it as it is and ends
    with exit code 2; ``--debug`` shows the traceback.
    """
