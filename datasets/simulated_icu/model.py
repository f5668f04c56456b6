"""The random model of simulated intensive-care stays.

The model of one stay, t in hours since admission, 0 <= t < 48:

Severity s (no unit, about 0 for the average patient, 2 for a very sick one) is an Ornstein-Uhlenbeck process about a
level that drifts, with relapses:

    ds = (m(t) - s) / TAU dt + SIGMA sqrt(2 / TAU) dW + dJ,        m(t) = mu + delta t / 48,   s(0) ~ N(mu, SIGMA^2)

    mu    ~ 0.25 (age - 64) / 17 + (effect of the ICU type) + N(0, 0.8^2)
    delta ~ N(-0.5, 0.9^2)                       most patients recover, some deteriorate
    J       jumps of size Exp(mean 1.2) at rate 0.01 exp(0.4 mu) per hour

Signal j (one of the 37 time series) at time t, where h is the hour of the day and the exponential is taken of signals
whose spread is proportional to their size (creatinine, lactate ...):

    x_j(t) = mean_j + load_j s(t) + person_j + circadian_j cos(2 pi (h - 16) / 24) + noise_j(t)     [or its exponential]

Sampling. Signals are measured in panels (a blood gas gives pH, PaCO2 and PaO2 together). The nurse comes round once in
every half hour, at a random minute; each panel is then taken or not, with a rate that depends on the severity: sick
patients are watched more closely, and lactate, blood gases or troponin are rarely ordered for the others (informative
missingness):

    rate_p(s) = highest_p / (1 + exp(-slope_p (s - centre_p)))                                       per hour

Outcome, from the mean severity over the last and the first 12 hours:

    P(death) = logistic(-2.6 + 1.9 late + 0.5 (late - early) + 0.3 (age - 64) / 17)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ccnn_irregular.datasets.physionet2012 import SERIES

__all__ = [
    "STEPS",
    "STEP_MINUTES",
    "Patients",
    "Rows",
    "draw_outcomes",
    "draw_patients",
    "draw_rows",
    "draw_severity",
]

STEP_MINUTES = 30
STEPS = 96
_HOURS = 48.0
_HALF_DAY = 24  # steps
_TAU = 8.0  # hours
_SIGMA = 0.6
_AGE_MEAN, _AGE_SD = 64.0, 17.0
_ICU_TYPES = (0.15, 0.21, 0.36, 0.28)  # coronary, cardiac surgery, medical, surgical
_ICU_EFFECTS = np.array([-0.2, -0.5, 0.35, 0.1])
_REPEATED = 0.002  # part of the rows written a second time with another value
_EMPTY_EVERY = 1000  # one stay in so many has no measurement; at least one in a set of 20 or more


class _Panel(NamedTuple):
    highest: float  # per hour
    slope: float
    centre: float


_PANELS = {
    "vitals": _Panel(2.0, 0.2, 0.0),
    "temperature": _Panel(0.7, 0.2, 0.0),
    "arterial line": _Panel(1.8, 0.4, 0.3),
    "cuff": _Panel(1.0, -0.3, 0.3),
    "coma scale": _Panel(0.5, 0.2, 0.0),
    "urine": _Panel(1.2, 0.2, 0.0),
    "chemistry": _Panel(0.13, 0.5, 0.0),
    "haematology": _Panel(0.12, 0.5, 0.0),
    "liver": _Panel(0.05, 1.0, 0.8),
    "blood gas": _Panel(0.2, 1.0, 0.5),
    "oximetry": _Panel(0.1, 1.0, 0.8),
    "ventilator": _Panel(0.3, 0.8, 0.5),
    "lactate": _Panel(0.15, 1.5, 1.1),
    "troponin I": _Panel(0.04, 1.2, 1.0),
    "troponin T": _Panel(0.06, 1.2, 1.0),
    "lipids": _Panel(0.01, 0.0, 0.0),
    "scale": _Panel(0.3, 0.2, 0.0),
}


class _Signal(NamedTuple):
    name: str
    panel: str
    mean: float  # in the unit of the challenge; of a proportional signal: its median
    load: float  # change per unit of severity; of a proportional signal: of the logarithm, as person and noise
    person: float  # standard deviation between patients
    noise: float  # standard deviation between measurements
    decimals: int  # written to the file
    low: float
    high: float
    circadian: float = 0.0  # amplitude
    proportional: bool = False


_SIGNALS = (
    _Signal("HR", "vitals", 86, 8, 10, 4, 0, 30, 200, circadian=3),  # 1/min
    _Signal("RespRate", "vitals", 19, 2.5, 3, 2, 0, 6, 60, circadian=0.5),  # 1/min
    _Signal("Temp", "temperature", 37.0, 0.15, 0.35, 0.25, 1, 33, 42, circadian=0.2),  # deg C
    _Signal("SysABP", "arterial line", 120, -8, 12, 7, 0, 40, 230, circadian=3),  # mmHg
    _Signal("DiasABP", "arterial line", 60, -3.5, 7, 4, 0, 20, 130, circadian=1.5),  # mmHg
    _Signal("MAP", "arterial line", 79, -5, 8, 5, 0, 30, 160, circadian=2),  # mmHg
    _Signal("NISysABP", "cuff", 121, -8, 12, 8, 0, 40, 230, circadian=3),  # mmHg
    _Signal("NIDiasABP", "cuff", 59, -3.5, 7, 5, 0, 20, 130, circadian=1.5),  # mmHg
    _Signal("NIMAP", "cuff", 78, -5, 8, 6, 1, 30, 160, circadian=2),  # mmHg
    _Signal("GCS", "coma scale", 13, -1.6, 1.2, 0.6, 0, 3, 15),  # 3-15
    _Signal("Urine", "urine", 90, -0.3, 0.4, 0.4, 0, 0, 2000, proportional=True),  # mL
    _Signal("BUN", "chemistry", 22, 0.22, 0.45, 0.06, 0, 2, 200, proportional=True),  # mg/dL
    _Signal("Creatinine", "chemistry", 1.1, 0.2, 0.4, 0.06, 1, 0.2, 20, proportional=True),  # mg/dL
    _Signal("Glucose", "chemistry", 130, 0.05, 0.2, 0.15, 0, 20, 900, proportional=True),  # mg/dL
    _Signal("HCO3", "chemistry", 24, -1.3, 2.5, 1, 0, 5, 45),  # mmol/L
    _Signal("K", "chemistry", 4.1, 0.08, 0.35, 0.25, 1, 2, 8),  # mEq/L
    _Signal("Mg", "chemistry", 2.0, 0.03, 0.2, 0.15, 1, 0.8, 5),  # mmol/L
    _Signal("Na", "chemistry", 139, 0.2, 3, 1.2, 0, 110, 175),  # mEq/L
    _Signal("HCT", "haematology", 31, -0.6, 4, 1.2, 1, 12, 60),  # %
    _Signal("Platelets", "haematology", 190, -0.1, 0.45, 0.06, 0, 5, 1200, proportional=True),  # 1000/uL
    _Signal("WBC", "haematology", 11.5, 0.08, 0.35, 0.1, 1, 0.2, 120, proportional=True),  # 1000/uL
    _Signal("Albumin", "liver", 3.0, -0.18, 0.45, 0.15, 1, 1, 5.5),  # g/dL
    _Signal("ALP", "liver", 85, 0.08, 0.45, 0.06, 0, 10, 2000, proportional=True),  # IU/L
    _Signal("ALT", "liver", 35, 0.2, 0.8, 0.1, 0, 2, 10000, proportional=True),  # IU/L
    _Signal("AST", "liver", 45, 0.25, 0.8, 0.1, 0, 4, 15000, proportional=True),  # IU/L
    _Signal("Bilirubin", "liver", 0.8, 0.25, 0.6, 0.1, 1, 0.1, 50, proportional=True),  # mg/dL
    _Signal("pH", "blood gas", 7.38, -0.028, 0.04, 0.02, 2, 6.8, 7.7),
    _Signal("PaCO2", "blood gas", 40, 0.8, 6, 3, 0, 15, 110),  # mmHg
    _Signal("PaO2", "blood gas", 110, -0.08, 0.25, 0.2, 0, 30, 500, proportional=True),  # mmHg
    _Signal("SaO2", "oximetry", 97, -0.7, 1, 0.8, 0, 60, 100),  # %
    _Signal("FiO2", "ventilator", 0.5, 0.06, 0.1, 0.04, 2, 0.21, 1),  # fraction
    _Signal("MechVent", "ventilator", 1, 0, 0, 0, 0, 1, 1),  # 1 while ventilated
    _Signal("Lactate", "lactate", 1.8, 0.28, 0.3, 0.12, 1, 0.3, 30, proportional=True),  # mmol/L
    _Signal("TroponinI", "troponin I", 0.8, 0.35, 1, 0.2, 1, 0.3, 50, proportional=True),  # ug/L
    _Signal("TroponinT", "troponin T", 0.08, 0.35, 1, 0.2, 2, 0.01, 25, proportional=True),  # ug/L
    _Signal("Cholesterol", "lipids", 160, -4, 35, 5, 0, 30, 400),  # mg/dL
    _Signal("Weight", "scale", 81, 0.5, 0, 0.4, 1, 30, 250),  # kg; varies between patients with the admission weight
)


@dataclass(frozen=True)
class Patients:
    """B patients; all arrays (B,) float64 except where said."""

    age: np.ndarray  # years
    male: np.ndarray  # 0 or 1
    height: np.ndarray  # cm
    weight: np.ndarray  # kg
    icu_type: np.ndarray  # int64, 0..3
    level: np.ndarray  # mu, the severity's first level
    drift: np.ndarray  # delta, how far the level moves in 48 h
    clock: np.ndarray  # hour of the day at admission


def draw_patients(stays: int, rng: np.random.Generator) -> Patients:
    """Patients of ``stays`` stays."""
    age = np.clip(rng.normal(_AGE_MEAN, _AGE_SD, stays), 16, 90).round()
    male = (rng.random(stays) < 0.56).astype(np.float64)
    icu_type = rng.choice(len(_ICU_TYPES), stays, p=_ICU_TYPES)
    height = rng.normal(162, 7, stays) + 13 * male
    weight = np.clip(rng.normal(73, 17, stays) + 13 * male, 35, 220)
    level = 0.25 * (age - _AGE_MEAN) / _AGE_SD + _ICU_EFFECTS[icu_type] + rng.normal(0, 0.8, stays)
    drift = rng.normal(-0.5, 0.9, stays)
    return Patients(age, male, height, weight, icu_type, level, drift, rng.uniform(0, 24, stays))


def draw_severity(patients: Patients, rng: np.random.Generator) -> np.ndarray:
    """Severity at the start of every step, (B, 96) float64; the step of the process is exact for a constant level."""
    stays = len(patients.age)
    hours = STEP_MINUTES / 60
    kept = np.exp(-hours / _TAU)
    spread = _SIGMA * np.sqrt(1 - kept**2)
    relapses = rng.poisson((0.01 * hours * np.exp(0.4 * patients.level))[:, None], (stays, STEPS))
    jumps = rng.gamma(np.maximum(relapses, 1), 1.2) * (relapses > 0)  # a sum of exponential sizes
    shocks = rng.normal(0, spread, (stays, STEPS))
    severity = np.empty((stays, STEPS))
    current = patients.level + rng.normal(0, _SIGMA, stays)
    for step in range(STEPS):
        severity[:, step] = current
        level = patients.level + patients.drift * (step * hours / _HOURS)
        current = level + (current - level) * kept + shocks[:, step] + jumps[:, step]
    return severity


def draw_outcomes(patients: Patients, severity: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Columns of the outcomes file: who dies, and when the patients leave."""
    stays = len(patients.age)
    early, late = severity[:, :_HALF_DAY].mean(1), severity[:, -_HALF_DAY:].mean(1)
    logit = -2.6 + 1.9 * late + 0.5 * (late - early) + 0.3 * (patients.age - _AGE_MEAN) / _AGE_SD
    death = rng.random(stays) < 1 / (1 + np.exp(-logit))
    # The scores describe the first day, as the real ones do.
    first_day = severity[:, : 2 * _HALF_DAY].mean(1)
    length = 3 + rng.gamma(1.5, 6.0, stays).astype(np.int64)
    later_death = rng.random(stays) < 0.25
    survived = np.where(later_death, length + 1 + rng.exponential(300, stays).astype(np.int64), -1)
    return {
        "SAPS-I": np.clip(14 + 4 * first_day + rng.normal(0, 3, stays), 0, 34).round().astype(np.int64),
        "SOFA": np.clip(6 + 2.5 * first_day + rng.normal(0, 2, stays), 0, 24).round().astype(np.int64),
        "Length_of_stay": length,
        "Survival": np.where(death, rng.integers(2, length + 1), survived),
        "In-hospital_death": death.astype(np.int64),
    }


@dataclass(frozen=True)
class Rows:
    """Measurements as they go into the files, in any order."""

    stay: np.ndarray  # (n,) int64
    minute: np.ndarray  # (n,) int64
    series: np.ndarray  # (n,) int64, index into SERIES
    text: np.ndarray  # (n,) str, the value


def draw_rows(patients: Patients, severity: np.ndarray, rng: np.random.Generator) -> Rows:
    """What is measured of all stays, and when."""
    stays = len(severity)
    rounds = STEP_MINUTES * np.arange(STEPS) + rng.integers(0, STEP_MINUTES, severity.shape)
    measured = {name: _draw_times(panel, severity, rounds, rng) for name, panel in _PANELS.items()}
    parts = [_measure(signal, patients, severity, *measured[signal.panel], rng) for signal in _SIGNALS]
    stay, minute, series, text = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    empty = rng.choice(stays, max(stays // _EMPTY_EVERY, 1 if stays >= 20 else 0), replace=False)
    kept = ~np.isin(stay, empty)
    return Rows(stay[kept], minute[kept], series[kept], text[kept])


def _draw_times(
    panel: _Panel, severity: np.ndarray, rounds: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Stays and minutes at which the panel is taken, (n,) int64 each; ``rounds`` (B, 96) are the minutes it may be."""
    rate = panel.highest / (1 + np.exp(-panel.slope * (severity - panel.centre)))
    taken = rng.random(severity.shape) < 1 - np.exp(-rate * STEP_MINUTES / 60)
    return np.nonzero(taken)[0], rounds[taken]


def _measure(
    signal: _Signal,
    patients: Patients,
    severity: np.ndarray,
    stay: np.ndarray,
    minute: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stay, minute, series and text of the signal's rows, with some of them repeated."""
    person = rng.normal(0, signal.person, len(patients.age))
    if signal.name == "Weight":
        person = patients.weight - signal.mean
    phase = 2 * np.pi * (patients.clock[stay] + minute / 60 - 16) / 24
    change = signal.load * severity[stay, minute // STEP_MINUTES] + person[stay] + signal.circadian * np.cos(phase)
    change += rng.normal(0, signal.noise, len(stay))
    values = signal.mean * np.exp(change) if signal.proportional else signal.mean + change

    again = np.flatnonzero(rng.random(len(stay)) < _REPEATED)
    values = np.concatenate([values, values[again] - 10.0**-signal.decimals])
    values = np.clip(values, signal.low, signal.high)
    rows = np.concatenate([np.arange(len(stay)), again])
    text = np.array([f"{value:.{signal.decimals}f}" for value in values.tolist()], dtype="U8")
    return stay[rows], minute[rows], np.full(len(rows), SERIES.index(signal.name)), text
