"""Names that the command line needs before anything heavy is imported."""

DEFAULT_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
