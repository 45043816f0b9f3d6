"""Reads and writes the files of a report."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.benchmark.errors import BenchmarkError, ReportFileError
from appliance.benchmark.guidellm.reading import from_guidellm, is_guidellm
from appliance.benchmark.guidellm.writing import to_guidellm
from appliance.benchmark.picture import chart
from appliance.benchmark.report import Report

REPORT = "report.json"
GUIDELLM = "report.guidellm.json"
PICTURE = "report.svg"
MOST_BYTES = 512 << 20
"""GuideLLM's reports hold every prompt and answer."""


def read_report(path: Path) -> Report:
    """Read a report of ours or of GuideLLM's.

    Raises:
        ReportFileError: it can't be read, or is neither.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ReportFileError(f"{path} is larger than {MOST_BYTES >> 20} MiB; no report is.")
        document: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise ReportFileError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ReportFileError(f"{path} is no JSON: {error}.") from error
    try:
        return from_guidellm(document) if is_guidellm(document) else Report.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ReportFileError(
            f"{path} is neither a report of `rouse bench` nor one of GuideLLM 0.8 in JSON: {where}: {first['msg']}."
        ) from error
    except OverflowError as error:
        raise ReportFileError(f"{path} holds numbers that no report has: {error}.") from error


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write a report as JSON, in GuideLLM's shape and as a chart; return the files.

    Raises:
        BenchmarkError: the folder can't be written to.
    """
    texts = {
        REPORT: report.model_dump_json(indent=1) + "\n",
        GUIDELLM: json.dumps(to_guidellm(report)) + "\n",
        PICTURE: chart(report),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise BenchmarkError(f"The report can't be written to {folder}: {error.strerror}.") from error
    return tuple(folder / name for name in texts)
