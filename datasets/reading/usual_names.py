"""What columns of tables are usually called, in English, Dutch, German and French."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

__all__ = ["plain", "usual"]

_DATES = (
    "time times datetime date timestamp timestamputc dateutc timeutc utctime datetimeutc dateandtime validtime obstime "
    "juld observationtime observationdate sampletime sampledate samplingtime samplingdate measurementtime "
    "measuredat recordedat eventtime "
    "datum tijd tijdstip tijdstempel datumtijd meettijd meetmoment "
    "zeit uhrzeit zeitpunkt zeitstempel datumzeit datumuhrzeit messzeit messzeitpunkt messdatum "
    "heure horodatage dateheure datemesure dateprelevement"
)
# The likeliest first. Written as ``plain`` writes them; what means different things in two languages is left out.
_USUAL = {
    # Series
    "id": "id seriesid series subjectid subject patientid patient pid recordid record stayid icustayid hadmid "
    "encounterid caseid sampleid deviceid sensorid instanceid patientnr patientnummer opnamenummer patientenid "
    "patientennummer fallnummer fallid identifiant idpatient numpatient",
    "time": f"{_DATES} charttime hour hours minutes seconds days t iculos observationoffset",
    "variable": "variable parameter code itemid item feature channel signal sensor measurementname test testname "
    "variablename parametername variabele grootheid messgrosse messgroesse grosse groesse kenngrosse kenngroesse "
    "messparameter parametre grandeur",
    "value": "value values numericvalue valuenum val measurement reading result amount waarde meetwaarde resultaat "
    "wert messwert ergebnis valeur resultat",
    "label": "label labels target outcome class y booleanvalue sepsislabel integervalue floatvalue categoricalvalue "
    "klasse uitkomst classe",
    "label_time": f"{_DATES} predictiontime labeltime indextime asof",
    # Stations. There "t" is a temperature, and an hour stands beside its date.
    "latitude": "latitude lat latdeg decimallatitude stationlatitude navlat ylat breedtegraad geobreite breitengrad",
    "longitude": "longitude lon long lng londeg decimallongitude stationlongitude navlon xlon lengtegraad geolaenge "
    "geolange laengengrad langengrad",
    "x": "x easting eastings xcoord utmx xm xkm projectionxcoordinate rechtswert ostwert rdx xrd",
    "y": "y northing northings ycoord utmy ym ykm projectionycoordinate hochwert nordwert rdy yrd",
    "date": _DATES,
    "level": "level depth pressure pres height altitude lev plev z depthm diepte tiefe profondeur",
    "station": "station stationid stationname site siteid id stn wmo platform platformnumber float floatid buoy "
    "trajectory track trackid ship cruise profile profileid name stationsid stationsnummer messstelle messstation "
    "meetpunt meetstation codestation nomstation numposte",
}
_NAMES = {role: {name: place for place, name in enumerate(names.split())} for role, names in _USUAL.items()}


def plain(name: str) -> str:
    """A name in small letters without accents, spaces, underscores and what else is no letter or digit."""
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in decomposed if letter.isalnum())


def usual(role: str, names: Iterable[str]) -> list[str]:
    """Those of some names by which a column of a role usually goes, the likeliest first.

    Args:
        role: of series "id", "time", "variable", "value", "label" or "label_time"; of stations "latitude", "longitude",
            "x", "y", "date", "level" or "station".
        names: of the columns of a table.
    """
    places = _NAMES[role]
    return sorted((name for name in names if plain(name) in places), key=lambda name: places[plain(name)])
