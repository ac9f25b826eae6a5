"""What the suites that are scripts share: figures of samples, and how they are written."""
import json
import statistics


def series(samples, called="samples", unit=""):
    """Median and quartiles. --compare looks at those called "samples" (less is better) and "rates" (more is)."""
    quarters = statistics.quantiles(samples, method="inclusive") if len(samples) > 1 else samples * 3
    return {"median" + unit: quarters[1], "lower_quartile" + unit: quarters[0],
            "upper_quartile" + unit: quarters[2], "min" + unit: min(samples), called + unit: list(samples)}


def cell(of, scale=1, digits=2, unit=""):
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(
        *(of[part + unit] * scale for part in ("median", "lower_quartile", "upper_quartile")), d=digits)


def write(path, result):
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
