"""The service: domains inside, see pyproject.toml for who may import whom."""
