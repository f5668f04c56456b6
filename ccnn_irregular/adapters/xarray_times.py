"""Times as numbers, exactly: datetime64 and timedelta64 of any unit, dates of any calendar, undecoded numbers."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ccnn_irregular._checks import reject, require
from ccnn_irregular._optional import import_optional
from ccnn_irregular.adapters.xarray_units import measure

__all__ = [
    "MISSING",
    "REAL_CALENDARS",
    "SINCE",
    "Kind",
    "Months",
    "TimeUnit",
    "calendar_of",
    "days_since_first",
    "elapsed",
    "epoch_shift",
    "is_time",
    "kind_of_times",
    "parsed_unit",
    "rescaled",
    "time_numbers",
    "with_zone",
]

TimeUnit = Literal["seconds", "minutes", "hours", "days"]
Months = Literal["calendar", "mean"]
Floats = NDArray[np.float64]

_EPOCH = "1970-01-01"
_SECONDS: dict[TimeUnit, int] = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
# Seconds of one tick of NumPy's units; months and years have no length of their own.
_TICKS: dict[str, Fraction] = {
    **{"W": Fraction(604_800), "D": Fraction(86400), "h": Fraction(3600), "m": Fraction(60), "s": Fraction(1)},
    **{name: Fraction(1, 1000**place) for place, name in enumerate(("ms", "us", "ns", "ps", "fs", "as"), 1)},
}
MISSING = np.iinfo(np.int64).min

# CF allows "since" only; UDUNITS reads the others too, which in other units may stand before anything but a date.
SINCE = re.compile(r"^\s*(\S+)\s+(?:since|(?:after|from|ref|@)(?=\s+[-+]?\d+-\d))\s+(\S.*?)\s*$", re.IGNORECASE)
# The reference: a date, a clock, and a time zone, which CF gives as H, HH, HMM, HHMM, H:MM or HH:MM.
_REFERENCE = re.compile(r"([+-]?\d+-\d+-\d+)(?:(?:T|\s+)(?:(\d[\d:.]*)\s*)?(\S.*)?)?", re.IGNORECASE)
_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::?(\d\d))?")
_UTC = ("", "z", "utc", "gmt")
_LARGEST_ZONE = 24
_MONTHS = {"month": 1, "months": 1, "mon": 1, "mons": 1, "year": 12, "years": 12, "yr": 12, "yrs": 12}
# UDUNITS' year is the tropical one, its month a twelfth of that.
_MEAN_MONTH = Fraction(365_242_198_781, 12 * 10**9)
_ALIASES = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
# Calendars of days that there were; the others count days of a model.
REAL_CALENDARS = ("standard", "proleptic_gregorian", "julian")
_CALENDARS = (*REAL_CALENDARS, "gregorian", "noleap", "365_day", "360_day", "all_leap", "366_day")
_YEAR_DAYS = {"noleap": 365, "all_leap": 366, "360_day": 360}


class Kind(NamedTuple):
    """What times are: ``dates`` of a calendar, ``spans`` of time, or ``numbers`` without a unit of time."""

    what: Literal["dates", "spans", "numbers"]
    calendar: str = ""

    def __str__(self) -> str:
        return f"dates of the calendar {self.calendar!r}" if self.what == "dates" else f"time {self.what}"


def kind_of_times(coordinate: xr.DataArray) -> Kind:
    """Tell whether times are dates, and of which calendar ("gregorian" is "standard"), or spans."""
    if coordinate.dtype.kind == "M":
        return Kind("dates", "proleptic_gregorian")
    if coordinate.dtype.kind == "m":
        return Kind("spans")
    if coordinate.dtype.kind == "O":
        dates = [date for date in coordinate.to_numpy().reshape(-1) if not _missing(date)]
        return Kind("dates", _ALIASES.get(dates[0].calendar, dates[0].calendar) if dates else "standard")
    unit = str(coordinate.attrs.get("units", ""))
    if SINCE.match(unit):
        return Kind("dates", calendar_of(coordinate))
    known = measure(unit)
    return Kind("spans" if known is not None and known[0] == "time" else "numbers")


def time_numbers(coordinate: xr.DataArray, time_unit: TimeUnit) -> tuple[Floats, Fraction] | None:
    """Convert dates (since 1970-01-01 of their calendar) or spans to numbers in ``time_unit``; nan where missing.

    Every number is the right one rounded once or twice, however far from 1970. Returned with the length of one stored
    unit in ``time_unit``. None = numbers without a unit of time.

    Raises:
        ValueError: objects that are no dates, dates of several calendars, a calendar or reference date that is none,
            months or years without a length (see ``decode_times``).
    """
    values, name = coordinate.to_numpy(), str(coordinate.name)
    require(time_unit in get_args(TimeUnit), "time_unit", f"be one of {get_args(TimeUnit)}", repr(time_unit))
    second = Fraction(1, _SECONDS[time_unit])
    if values.dtype.kind in "mM":
        ticks, length = _ticks(values, name)
        return rescaled(ticks, length * second), length * second
    if values.dtype.kind == "O":
        return _calendar_numbers(values, name, time_unit), Fraction(0)
    unit = str(coordinate.attrs.get("units", ""))
    rule = "be '<unit> since <date>'; turn dates written as numbers into datetime64 first"
    require(" as %" not in unit, f"unit of {name!r}", rule, repr(unit))
    if not SINCE.match(unit):
        known = measure(unit)
        if known is None or known[0] != "time":
            return None
        return rescaled(values, known[1] * second), known[1] * second
    found, length = elapsed(coordinate, None)
    reference = float(_since_epoch(coordinate) * second)
    return rescaled(found, length * second) + reference, length * second


def days_since_first(coordinate: xr.DataArray) -> Floats:
    """Return the days from the first of dates or spans to each; none may be missing.

    Exact where NumPy's own difference is: numbers since 1970 cannot tell nanoseconds apart.
    """
    if coordinate.dtype.kind in "mM":
        ticks, length = _ticks(coordinate.to_numpy(), str(coordinate.name))
        if int(ticks.max()) - int(ticks.min()) < -MISSING:
            return rescaled(ticks - ticks[0], length / 86400)
    found = time_numbers(coordinate, "days")
    assert found is not None
    return found[0] - found[0][0]


def epoch_shift(kind: Kind, other: Kind) -> int | None:
    """Return the days to add to dates of ``kind`` to have those of ``other``; None = the calendars share no day."""
    if kind.calendar == other.calendar:
        return 0
    if kind.calendar not in REAL_CALENDARS or other.calendar not in REAL_CALENDARS:
        return None
    cftime = import_optional("cftime", "dates of another calendar", "files")
    epoch = cftime.datetime(1970, 1, 1, calendar=kind.calendar).change_calendar(other.calendar)
    return int(cftime.date2num(epoch, f"days since {_EPOCH}", calendar=other.calendar))


def _missing(date: Any) -> bool:
    return date is None or (isinstance(date, (float, np.floating)) and bool(np.isnan(date)))


def _ticks(values: NDArray[Any], name: str) -> tuple[NDArray[np.int64], Fraction]:
    """Convert datetime64 or timedelta64 to whole numbers of a length in seconds."""
    unit, count = np.datetime_data(values.dtype)
    if values.dtype.kind == "M" and unit in ("Y", "M"):
        values, unit, count = values.astype("datetime64[D]"), "D", 1
    rule = "have a unit of a fixed length, weeks to attoseconds"
    require(unit in _TICKS, f"time spans {name!r}", rule, str(values.dtype))
    return values.view(np.int64), count * _TICKS[unit]


def rescaled(numbers: NDArray[Any], factor: Fraction) -> Floats:
    """Multiply ``numbers`` by ``factor``; of integers the whole part is taken off first, so that no digit is lost."""
    if numbers.dtype.kind != "i" or factor.denominator > np.iinfo(np.int64).max:
        return np.asarray(numbers.astype(np.float64) * factor.numerator / factor.denominator)
    # Both with the sign of the number: neither cancels out the other.
    rest = np.fmod(numbers.astype(np.int64), factor.denominator)
    whole = (numbers - rest) // factor.denominator
    scaled = whole * float(factor.numerator) + rest * float(factor.numerator) / factor.denominator
    return cast("Floats", np.where(numbers == MISSING, np.nan, scaled))


def _calendar_numbers(values: NDArray[Any], name: str, time_unit: TimeUnit) -> Floats:
    """Convert dates of any calendar to time since 1970-01-01 in it."""
    cftime = import_optional("cftime", f"the dates of {name!r}", "files")
    flat = values.reshape(-1)
    known = np.array([not _missing(value) for value in flat], dtype=bool)
    dates = flat[known]
    only = all(isinstance(value, cftime.datetime) for value in dates)
    require(only and len(dates) > 0, f"coordinate {name!r}", "hold numbers or dates", f"objects such as {flat[:1]}")
    calendars = sorted({value.calendar for value in dates})
    require(len(calendars) == 1, f"coordinate {name!r}", "have dates of one calendar", calendars)
    numbers = np.full(len(flat), np.nan)
    zero = dates[0].has_year_zero
    unit = f"{time_unit} since {_EPOCH} 00:00:00"
    numbers[known] = cftime.date2num(dates, unit, calendar=calendars[0], has_year_zero=zero)
    return numbers.reshape(values.shape)


def calendar_of(coordinate: xr.DataArray) -> str:
    """Return the calendar of a coordinate, "standard" where it names none; refuse unknown calendars."""
    given = str(coordinate.attrs.get("calendar", "standard")).strip()
    rule = f"be one of {_CALENDARS}; with decode_times=False set its attribute to the one meant, then decode_times"
    require(given.lower() in _CALENDARS, f"calendar of {str(coordinate.name)!r}", rule, repr(given))
    return _ALIASES.get(given.lower(), given.lower())


def parsed_unit(coordinate: xr.DataArray) -> tuple[str, str, Any]:
    """Return the unit, the reference as text that cftime reads, and as a date."""
    cftime = import_optional("cftime", f"the dates of {str(coordinate.name)!r}", "files")
    text = str(coordinate.attrs["units"])
    found = SINCE.match(text)
    assert found is not None
    calendar = calendar_of(coordinate)
    reference = with_zone(coordinate, found[2])
    try:
        date = cftime.num2date(0, f"seconds since {reference}", calendar=calendar)
    except ValueError as error:
        rule = f"be '<unit> since <date>' with a date of the calendar {calendar!r}"
        raise ValueError(f"unit of {str(coordinate.name)!r} must {rule}, got {text!r}: {error}") from error
    return found[1], reference, date


def with_zone(coordinate: xr.DataArray, reference: str) -> str:
    """Write the reference's time zone as "-06:00": cftime takes "-6:00" and "EST" for UTC, and "+530" for 53 hours."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None or (parts[3] or "").lower() in _UTC:
        return reference
    zone = _ZONE.fullmatch(parts[3])
    if zone is None or int(zone[2]) > _LARGEST_ZONE:
        rule = "have a time zone of hours and minutes, such as -05:00"
        reject(f"unit of {str(coordinate.name)!r}", rule, repr(str(coordinate.attrs["units"])))
    return f"{parts[1]} {parts[2] or '00:00:00'} {zone[1] or '+'}{int(zone[2]):02}:{zone[3] or '00'}"


def _since_epoch(coordinate: xr.DataArray) -> Fraction:
    """Return the seconds from 1970 to the reference date, in its calendar."""
    cftime = import_optional("cftime", f"the dates of {str(coordinate.name)!r}", "files")
    date = parsed_unit(coordinate)[2]
    unit = f"microseconds since {_EPOCH}"
    return Fraction(int(cftime.date2num(date, unit, calendar=date.calendar, has_year_zero=date.has_year_zero)), 10**6)


def elapsed(coordinate: xr.DataArray, months: Months | None) -> tuple[NDArray[Any], Fraction]:
    """Return numbers since the reference date, and the length of their unit in seconds."""
    unit, _, _ = parsed_unit(coordinate)
    known = measure(unit)
    if known is not None and known[0] == "time":
        return coordinate.to_numpy(), known[1]
    rule = "be a unit of time since a date"
    require(unit.lower() in _MONTHS, f"unit of {str(coordinate.name)!r}", rule, repr(coordinate.attrs["units"]))
    return _days_of_months(coordinate, _MONTHS[unit.lower()], months), Fraction(86400)


def _days_of_months(coordinate: xr.DataArray, length: int, months: Months | None) -> Floats:
    """Convert numbers of ``length`` months to days since the reference date."""
    _, text, reference = parsed_unit(coordinate)
    numbers = rescaled(coordinate.to_numpy(), Fraction(1))
    calendar = calendar_of(coordinate)
    if calendar == "360_day" or (calendar in _YEAR_DAYS and length == 12):
        return numbers * _YEAR_DAYS[calendar] * length / 12
    if months == "mean":
        return numbers * float(length * _MEAN_MONTH)
    known = np.isfinite(numbers)
    whole = np.floor(numbers[known])
    share = numbers[known] - whole
    fractions = np.flatnonzero(share)
    what = f"{'years' if length == 12 else 'months'} since {text!r} in {str(coordinate.name)!r}"
    rule = (
        "be whole numbers, or be told what a fraction is: months='calendar' = a share of the month or year it falls "
        "in, months='mean' = of UDUNITS' year of 365.242198781 days (in open_cube, or decode_times of a Dataset)"
    )
    require(months == "calendar" or len(fractions) == 0, what, rule, numbers[known][fractions[:1]])
    places, back = np.unique(np.concatenate([whole, whole + 1]) if len(fractions) else whole, return_inverse=True)
    days = np.array([_days_until(what, reference, int(place) * length) for place in places], np.float64)[back]
    found = np.full(numbers.shape, np.nan)
    begin = days[: len(whole)]
    found[known] = begin + share * (days[len(whole) :] - begin) if len(fractions) else begin
    return found


def _days_until(what: str, reference: Any, months: int) -> float:
    """Return the days from the reference to the same day and time some months later."""
    total = 12 * reference.year + reference.month - 1 + months
    year, month = divmod(total, 12)
    rule = f"reach months that have its day {reference.day}, or be read with months='mean'"
    require(year > 0 or reference.has_year_zero, what, "reach no year before 1", year)
    try:
        return float((reference.replace(year=year, month=month + 1) - reference).total_seconds() / 86400)
    except ValueError as error:
        raise ValueError(f"{what} must {rule}, got {year}-{month + 1:02}: {error}") from error


def is_time(coordinate: xr.DataArray) -> bool:
    """Tell whether a coordinate holds dates, or spans along their own dimension."""
    if coordinate.dtype.kind not in "mMiufO":
        return False
    if coordinate.dtype.kind == "O" and not hasattr(coordinate.values.reshape(-1)[:1].tolist()[0], "calendar"):
        return False
    kind = kind_of_times(coordinate).what
    return kind == "dates" or (kind == "spans" and coordinate.dims == (coordinate.name,))
