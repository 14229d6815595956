"""The adapter to MiniStack: it serves it, repairs it from outside, and registers SageMaker with it.

Only this package knows MiniStack. It relies on internals of one exact version, so every function that it replaces is
compared with the one it was written for when the server starts (`repairs`).
"""
