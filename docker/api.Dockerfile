# The API, and the migrations that go with it. Build from the root of the checkout.
FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml README.md constraints.txt ./
COPY thaw ./thaw
RUN --mount=type=cache,target=/root/.cache/pip /venv/bin/pip install -c constraints.txt ".[api]"

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home thaw && install -d -o thaw -g thaw -m 0700 /var/lib/thaw
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY --from=packages /venv /venv
COPY alembic.ini ./
COPY migrations ./migrations
COPY shared ./shared
COPY api ./api
USER 10001
EXPOSE 8000
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
