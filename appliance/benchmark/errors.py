"""Errors of a benchmark.

BenchmarkError
├── UnreachableError   nothing answered at all: check the URL, and that the server runs
├── AllFailedError     the target answered, but no request succeeded: the message has the most frequent reason
└── ReportFileError    a file is no report that can be read
"""


class BenchmarkError(Exception):
    """Root of the package's errors; the message is a sentence for people."""


class UnreachableError(BenchmarkError):
    """The target can't be reached."""


class AllFailedError(BenchmarkError):
    """No request succeeded."""


class ReportFileError(BenchmarkError):
    """The file is no report of ours and none of GuideLLM's."""
