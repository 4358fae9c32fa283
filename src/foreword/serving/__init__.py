"""`foreword serve`: embeddings by OpenAI's API, search and the bank's figures, of many domains on one backbone.

Only `foreword.serving.config` may be imported without the extra `serve` (FastAPI, uvicorn, prometheus_client).
"""
