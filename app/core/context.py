"""What composition puts on ``app.state`` for routes and pumps, listed in one place.

settings    app.core.settings.Settings
database    app.core.db.Database (main; ``reading()`` / ``writing()`` sessions)
ring        app.crypto.keyring.KeyRing
key_store   app.crypto.keystore.KeyStore
limits      app.security.limits.RateLimits
cursors     app.core.http.Cursors
pumps       app.core.pump.Pumps
catalogue   app.destinations.catalogue.Catalogue
consents    app.consent.writer.ConsentWriter
consent_receipt  app.consent.receipts.ConsentReceipts.find (app.receipts.routes asks it)
outbound    app.core.outbound.Outbound
key_sets    app.identity.host_key_sets.KeySets (of hosts that sign tokens)
archive     app.delivery.archive.Archive
gauges      app.delivery.gauges.Gauges
engine      app.delivery.engine.Engine (worker processes and the embedded form)
"""
