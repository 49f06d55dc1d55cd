"""The demo: an invented shop with customers, destinations, a past, and pages to try it on."""
