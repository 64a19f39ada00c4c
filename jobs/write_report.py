#!/usr/bin/env python3
"""Write the report: each table, figure and claim of the paper beside ours. jobs/write_report.py --out DIR [OPTIONS]

    jobs/write_report.py --out report                                         all finished runs that MLflow knows
    jobs/write_report.py --out report --runs RUNS/figure1 RUNS/table6         the runs in these folders
    jobs/write_report.py --out report --runs RUNS/figure1 --export results/trainings         keep their rows as JSON
    jobs/write_report.py --out results/report --results results/trainings --docs docs/results.md

Errors by 10-crop and the like, and Figure 7, come into the rows by jobs/evaluate_model.py CHECKPOINT --protocol 10-crop
--results results/trainings, and by --responses there. Trials of a search are no rows.

DIR gains report.html, report.md and figures/. Rows of benchmarks/training/single.py may lie in the same folder: the
report says of each setting how it was made.
"""

import sys

from pipelines import command_line
from pipelines.reports import collected_rows, report
from resnet.paper import result_rows


def job(argv: list[str]) -> dict[str, object]:
    """Collect rows, write the pages."""
    asked = command_line.parse_arguments(collected_rows.Rows, None, argv, __doc__)
    rows = asked.read()
    if asked.export is not None:
        result_rows.write_results(asked.export, rows)
    page = report.write_report(rows, asked.out, asked.docs)
    print(f"{len(rows)} trainings: {page}", file=sys.stderr)
    return {"report": str(page), "trainings": len(rows), "docs": asked.docs}


if __name__ == "__main__":
    command_line.run_job(job, "the same command begins anew")
