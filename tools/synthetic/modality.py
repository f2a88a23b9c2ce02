"""The kinds of light that a camera records."""

VISIBLE, INFRARED, THERMAL = "visible", "infrared", "thermal"
