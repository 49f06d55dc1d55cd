"""View models: what each page shows, read from the database and put into words; templates add no
policy.
"""
