"""The queue engine: plans become deliveries, deliveries become calls, answers become history."""
