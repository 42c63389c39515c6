"""SQL, the only importer of SQLAlchemy: the engine, the tables, one file a noun, the migrations."""
